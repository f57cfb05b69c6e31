"""Entries of the audit log are neither changed nor deleted, but by retention.

It protects from mistakes: who owns the table can drop the trigger.
"""

from app.database.engine import DB
from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:58:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "trigger mailroom_keep_audit"

MAKE_FUNCTION = """
CREATE OR REPLACE FUNCTION mailroom_keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('mailroom.prunes_audit', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'entries of the audit log are neither changed nor deleted';
END
$$
"""
IS_MADE = "SELECT 1 FROM pg_trigger WHERE tgname = 'mailroom_keep_audit'"
MAKE_TRIGGER = """
CREATE TRIGGER mailroom_keep_audit BEFORE UPDATE OR DELETE ON audit_entries
FOR EACH ROW EXECUTE FUNCTION mailroom_keep_audit()
"""


async def make_trigger() -> None:
    await DB.run_ddl(MAKE_FUNCTION)
    if not await DB.run_ddl(IS_MADE):
        await DB.run_ddl(MAKE_TRIGGER)


async def drop_trigger() -> None:
    await DB.run_ddl("DROP TRIGGER IF EXISTS mailroom_keep_audit ON audit_entries")
    await DB.run_ddl("DROP FUNCTION IF EXISTS mailroom_keep_audit()")


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_raw(make_trigger)
    manager.add_raw_backwards(drop_trigger)
    return manager
