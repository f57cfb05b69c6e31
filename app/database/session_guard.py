"""What Mailroom adds to Piccolo's tables of users and sessions: an index, and two triggers.

Sessions are found by the index, and end with the password, whoever changes it by whatever means.
The last administrator stays one, by whatever means somebody tries to change that. The tables belong
to apps whose migrations may run before ours or after, so this is run after both.
"""

from app.database.engine import DB

ARE_THERE = """
SELECT 1 WHERE to_regclass('sessions') IS NOT NULL AND to_regclass('piccolo_user') IS NOT NULL
"""
IS_GUARDED = "SELECT 1 FROM pg_trigger WHERE tgname = 'mailroom_end_sessions'"
KEEPS_AN_ADMIN = "SELECT 1 FROM pg_trigger WHERE tgname = 'mailroom_keep_an_admin'"
LAST_ADMIN = "mailroom_last_admin"
"""What the error is named that refuses to remove the last administrator: as a constraint is."""

# Few rows, for which no webhook waits.
MAKE_INDEX = "CREATE INDEX IF NOT EXISTS ix_sessions_token ON sessions (token)"
MAKE_FUNCTION = """
CREATE OR REPLACE FUNCTION mailroom_end_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sessions WHERE user_id = NEW.id;
    RETURN NULL;
END
$$
"""
MAKE_TRIGGER = """
CREATE TRIGGER mailroom_end_sessions AFTER UPDATE OF password ON piccolo_user
FOR EACH ROW WHEN (OLD.password IS DISTINCT FROM NEW.password)
EXECUTE FUNCTION mailroom_end_sessions()
"""

# Two who remove each other wait for the lock; the second one then sees what the first one did.
MAKE_ADMIN_FUNCTION = """
CREATE OR REPLACE FUNCTION mailroom_keep_an_admin() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(5216070);
    IF NOT EXISTS (SELECT FROM piccolo_user WHERE superuser AND active AND admin) THEN
        RAISE EXCEPTION 'nobody else is an administrator who may sign in: make somebody one first'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'mailroom_last_admin';
    END IF;
    RETURN NULL;
END
$$
"""
MAKE_ADMIN_TRIGGER = """
CREATE TRIGGER mailroom_keep_an_admin
AFTER UPDATE OF superuser, active, admin OR DELETE ON piccolo_user
FOR EACH ROW WHEN (OLD.superuser AND OLD.active AND OLD.admin)
EXECUTE FUNCTION mailroom_keep_an_admin()
"""


async def guard_sessions() -> None:
    """Make what sessions need and is missing, where the tables are there."""
    if not await DB.run_ddl(ARE_THERE):
        return
    await DB.run_ddl(MAKE_INDEX)
    if not await DB.run_ddl(IS_GUARDED):
        await DB.run_ddl(MAKE_FUNCTION)
        await DB.run_ddl(MAKE_TRIGGER)


async def leave_sessions() -> None:
    """Take it away again."""
    if await DB.run_ddl(ARE_THERE):
        await DB.run_ddl("DROP TRIGGER IF EXISTS mailroom_end_sessions ON piccolo_user")
    await DB.run_ddl("DROP FUNCTION IF EXISTS mailroom_end_sessions()")
    await DB.run_ddl("DROP INDEX IF EXISTS ix_sessions_token")


async def guard_admins() -> None:
    """Have the database refuse to remove the last administrator, where the tables are there."""
    if not await DB.run_ddl(ARE_THERE) or await DB.run_ddl(KEEPS_AN_ADMIN):
        return
    await DB.run_ddl(MAKE_ADMIN_FUNCTION)
    await DB.run_ddl(MAKE_ADMIN_TRIGGER)


async def leave_admins() -> None:
    """Take it away again."""
    if await DB.run_ddl(ARE_THERE):
        await DB.run_ddl("DROP TRIGGER IF EXISTS mailroom_keep_an_admin ON piccolo_user")
    await DB.run_ddl("DROP FUNCTION IF EXISTS mailroom_keep_an_admin()")
