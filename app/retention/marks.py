"""Where the next look for what is old enough begins: what is done for good is not passed again, nor
the dead entries of indexes that deleted rows leave until a vacuum.

What was held back keeps its mark before it. Once a week the look begins at the oldest of all, for
rows that somebody put into the table since, as from a backup.
"""

from datetime import UTC, datetime, timedelta

from app.jobs.transitions.common import Database

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
LOOK_AT_ALL_AFTER = timedelta(days=7)

READ = """
SELECT done_until FROM retention_marks
WHERE name = $1 AND looked_at_all_at > now() - $2::interval
"""
WRITE = """
INSERT INTO retention_marks AS mark (name, done_until, looked_at_all_at) VALUES ($1, $2, now())
ON CONFLICT (name) DO UPDATE SET done_until = excluded.done_until,
    looked_at_all_at = CASE WHEN $3 THEN now() ELSE mark.looked_at_all_at END
"""


async def read_mark(database: Database, name: str) -> datetime:
    """From where to look."""
    mark: datetime | None = await database.fetchval(READ, name, LOOK_AT_ALL_AFTER)
    return mark or BEGINNING


async def write_mark(
    database: Database, name: str, done_until: datetime, *, looked_at_all: bool
) -> None:
    """Of what ended before this, nothing is left."""
    await database.execute(WRITE, name, done_until, looked_at_all)
