"""How many files are in each state, how many bytes they have, and how far fetching is behind."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TypeAlias

import attrs

from app.attachments.transitions import Database
from app.models.email_attachment import AttachmentState

# Each state by ix_email_attachments_state alone; limits of NULL are none.
COUNT = """
SELECT wanted AS state, files, bytes FROM unnest($1::text[]) AS wanted CROSS JOIN LATERAL (
    SELECT count(*) AS files, COALESCE(sum(size), 0)::bigint AS bytes FROM (
        SELECT size FROM email_attachments
        WHERE state = wanted AND ($2::timestamptz IS NULL OR ended_at >= $2) LIMIT $3
    ) AS counted
) AS of_state
"""
# What is being fetched, or waits for its next try, is not due.
LAG = """
SELECT now() - next_attempt_at FROM email_attachments
WHERE state = 'pending' AND next_attempt_at < now() ORDER BY next_attempt_at LIMIT 1
"""


@attrs.frozen
class Count:
    """Files in a state."""

    files: int
    bytes: int


Counts: TypeAlias = dict[AttachmentState, Count]


async def count_files(
    database: Database,
    states: Collection[AttachmentState],
    *,
    since: datetime | None = None,
    at_most: int | None = None,
) -> Counts:
    """The files in each state, of those that ended since a moment; counted up to `at_most`."""
    rows = await database.fetch(COUNT, list(states), since, at_most)
    return {AttachmentState(row["state"]): Count(row["files"], row["bytes"]) for row in rows}


async def find_lag(database: Database) -> timedelta:
    """How long the file is due that waits longest for a worker; 0 where none does."""
    lag: timedelta | None = await database.fetchval(LAG)
    return lag or timedelta(0)
