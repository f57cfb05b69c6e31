"""Finding and counting emails."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import attrs

from app.api.email_pages import find_page
from app.api.search import Cursor, Search
from app.jobs.transitions import operators
from app.jobs.transitions.common import Database
from app.models.incoming_email import ProcessingStatus
from app.search.entries import catch_up

# A statement that changes more holds its locks for too long.
RETRY_BATCH = 500

# Each state by ix_incoming_emails_status_received alone; a limit of NULL is none.
COUNT = """
SELECT state, (
    SELECT count(*) FROM (
        SELECT 1 FROM incoming_emails WHERE processing_status = state LIMIT $2
    ) AS counted
) AS emails, (
    SELECT received_at FROM incoming_emails WHERE processing_status = state
    ORDER BY received_at LIMIT 1
) AS oldest_received_at, now() AS now
FROM unnest($1::text[]) AS state
"""


@attrs.frozen
class Count:
    """How many emails are in a state."""

    emails: int
    oldest_received_at: datetime | None
    oldest_age: timedelta
    """Zero where there is none, or where it was received in the future."""


Counts: TypeAlias = dict[ProcessingStatus, Count]


async def list_emails(
    database: Database, search: Search, *, limit: int, after: Cursor | None
) -> tuple[list[dict[str, Any]], Cursor | None]:
    """A page of emails, the newest received first, and where the next page begins.

    A page is found by its cursor and not by counting, so what arrives meanwhile shifts nothing.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    page = await find_page(database, search, limit=limit, after=after)
    return page.rows, page.last if page.has_older else None


async def count_matching(database: Database, search: Search) -> int:
    """How many emails are meant.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    parameters: list[object] = []
    where = search.where(parameters)
    await catch_up(database)
    count: int = await database.fetchval(
        f"SELECT count(*) FROM incoming_emails WHERE {where}",  # noqa: S608 - of constants
        *parameters,
    )
    return count


async def count_by_status(
    database: Database,
    states: Sequence[ProcessingStatus] = tuple(ProcessingStatus),
    *,
    at_most: int | None = None,
) -> Counts:
    """The emails of each of these states.

    Args:
        at_most: count no further in each.
    """
    counts = {}
    for row in await database.fetch(COUNT, [state.value for state in states], at_most):
        oldest = row["oldest_received_at"]
        age = row["now"] - oldest if oldest else timedelta()
        counts[ProcessingStatus(row["state"])] = Count(row["emails"], oldest, max(age, timedelta()))
    return counts


async def retry_failed(database: Database, search: Search, *, by: str) -> int:
    """failed -> queued, by an operator, for all that are meant; `search.status` is not heeded.

    It goes through them once, so what fails again meanwhile is not tried for ever.

    Returns:
        How many.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    failed = attrs.evolve(search, status=(ProcessingStatus.FAILED,))
    retried = 0
    after: Cursor | None = None
    while True:
        page, after = await list_emails(database, failed, limit=RETRY_BATCH, after=after)
        retried += len(await operators.retry_many(database, [row["id"] for row in page], by=by))
        if after is None:
            return retried


async def read_email(database: Database, email_id: UUID) -> dict[str, Any] | None:
    """Every column of an email."""
    row = await database.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    return dict(row) if row is not None else None
