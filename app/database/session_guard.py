"""What Mailroom adds to Piccolo's tables of users and sessions: an index, and a trigger.

Sessions are found by the index, and end with the password, whoever changes it by whatever means.
The tables belong to apps whose migrations may run before ours or after, so this is run after both.
"""

from app.database.engine import DB

ARE_THERE = """
SELECT 1 WHERE to_regclass('sessions') IS NOT NULL AND to_regclass('piccolo_user') IS NOT NULL
"""
IS_GUARDED = "SELECT 1 FROM pg_trigger WHERE tgname = 'mailroom_end_sessions'"

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


async def guard_sessions() -> None:
    """Make what is missing, where the tables are there."""
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
