"""Fill `lost_claims` for the emails that are under way: until now it was what `claims` had beyond
the attempts.

A worker of an older version does not count in the new column what it brings back, so an email that
vanishes with its worker meanwhile may be tried once more often. There is nothing to do on the way
back.
"""

from app.database.engine import DB
from app.database.online_migration import OnlineMigration

ID = "2026-11-25T00:17:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "values of lost_claims"

COUNT = """
UPDATE incoming_emails
SET lost_claims = claims - retry_count - (processing_status = 'processing')::int
WHERE processing_status IN ('queued', 'processing')
AND claims - retry_count - (processing_status = 'processing')::int > 0
"""


async def count() -> None:
    await DB.run_ddl(COUNT)


async def keep() -> None:
    """The column goes by the way back of the migration before."""


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_raw(count)
    manager.add_raw_backwards(keep)
    return manager
