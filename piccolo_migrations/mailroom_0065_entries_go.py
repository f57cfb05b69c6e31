"""An entry of the index of words goes with its email, whoever removes or empties that: a version
from before the index, too, which runs beside this one or was gone back to.

The lock is the one of `app.search.entries`: an entry that is being made is waited for.
"""

from app.database.engine import DB
from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:05:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "triggers mailroom_entries_go, mailroom_entry_goes"

MAKE = [
    """
CREATE OR REPLACE FUNCTION mailroom_entries_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5216001);
    DELETE FROM search_entries WHERE email = ANY (ARRAY(SELECT id FROM gone));
    RETURN NULL;
END
$$
""",
    """
CREATE OR REPLACE FUNCTION mailroom_entry_goes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5216001);
    DELETE FROM search_entries WHERE email = NEW.id;
    RETURN NULL;
END
$$
""",
    """
CREATE OR REPLACE TRIGGER mailroom_entries_go AFTER DELETE ON incoming_emails
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION mailroom_entries_go()
""",
    """
CREATE OR REPLACE TRIGGER mailroom_entry_goes AFTER UPDATE OF erased_at ON incoming_emails
FOR EACH ROW WHEN (NEW.erased_at IS NOT NULL AND OLD.erased_at IS DISTINCT FROM NEW.erased_at)
EXECUTE FUNCTION mailroom_entry_goes()
""",
]
TAKE_BACK = [
    "DROP TRIGGER IF EXISTS mailroom_entries_go ON incoming_emails",
    "DROP TRIGGER IF EXISTS mailroom_entry_goes ON incoming_emails",
    "DROP FUNCTION IF EXISTS mailroom_entries_go()",
    "DROP FUNCTION IF EXISTS mailroom_entry_goes()",
]


async def make() -> None:
    for statement in MAKE:
        await DB.run_ddl(statement)


async def take_back() -> None:
    for statement in TAKE_BACK:
        await DB.run_ddl(statement)


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.waits_for("incoming_emails")
    manager.add_raw(make)
    manager.add_raw_backwards(take_back)
    return manager
