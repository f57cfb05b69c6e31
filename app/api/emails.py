"""Finding, counting and erasing emails."""

import base64
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.attachments import transitions as attachments
from app.jobs.transitions import operators
from app.jobs.transitions.common import Database
from app.models.fit import fit_text, in_utc
from app.models.incoming_email import ProcessingStatus, SyncStatus

# A statement that changes more holds its locks for too long.
RETRY_BATCH = 500

SUMMARY_COLUMNS = """
id, zendesk_ticket_id, processing_status, from_email, from_name, subject, received_at, created_at,
queued_at, started_at, completed_at, next_attempt_at, retry_count, processing_error, sync_status
"""

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

# An email that nobody could read has a copy in the quarantine, which a retry would store again.
DELETE = """
WITH gone AS (
    DELETE FROM incoming_emails WHERE id = $1 RETURNING id, delivery_signature
), copies AS (
    DELETE FROM quarantined_webhooks AS copy USING gone
    WHERE copy.id = gone.id
        OR copy.headers ->> 'x-zendesk-webhook-signature' = gone.delivery_signature
)
SELECT count(*) FROM gone
"""


class CursorError(ValueError):
    """A cursor that was not made here."""


class SearchError(ValueError):
    """A filter that PostgreSQL cannot take. `field` is its name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@attrs.frozen
class Cursor:
    """The place in the list after which a page begins."""

    received_at: datetime
    id: UUID

    def encode(self) -> str:
        text = json.dumps([self.received_at.isoformat(), str(self.id)])
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Read what `encode` made.

        Raises:
            CursorError: it is something else.
        """
        try:
            received_at, email_id = json.loads(base64.urlsafe_b64decode(text))
            cursor = cls(in_utc(datetime.fromisoformat(received_at)), UUID(email_id))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CursorError("it is not one that the API gave: leave it out to begin") from error
        return cursor


@attrs.frozen(kw_only=True)
class Search:
    """Which emails are meant; all that is given has to hold."""

    status: Sequence[ProcessingStatus] = ()
    ticket_id: str | None = None
    from_email: str | None = None
    """The whole address, in upper or lower case."""
    subject: str | None = None
    """A part of it, in upper or lower case."""
    error: str | None = None
    """A part of why it is failed."""
    sync_status: SyncStatus | None = None
    received_from: datetime | None = None
    received_until: datetime | None = None
    """Exclusive."""
    completed_from: datetime | None = None
    """When it became completed or failed."""
    completed_until: datetime | None = None
    """Exclusive."""

    def where(self, parameters: list[object]) -> str:
        """The condition in SQL; its values are appended to the parameters.

        Raises:
            SearchError: a value that PostgreSQL cannot take.
        """
        conditions = ["true"]

        def add(condition: str, value: object) -> None:
            parameters.append(value)
            conditions.append(condition.format(f"${len(parameters)}"))

        for name in ("ticket_id", "from_email", "subject", "error"):
            _check_text(name, getattr(self, name))
        if self.status:
            parameters += [status.value for status in self.status]
            first = len(parameters) - len(self.status) + 1
            numbers = ", ".join(f"${number}" for number in range(first, len(parameters) + 1))
            conditions.append(f"processing_status IN ({numbers})")
        if self.ticket_id is not None:
            add("zendesk_ticket_id = {}", self.ticket_id)
        if self.from_email is not None:
            add("lower(from_email) = lower({})", self.from_email)
        if self.subject is not None:
            add("subject ILIKE {}", _containing(self.subject))
        if self.error is not None:
            add("processing_error ILIKE {}", _containing(self.error))
        if self.sync_status is not None:
            add("sync_status = {}", self.sync_status.value)
        for column in ("received", "completed"):
            for bound, comparison in (("from", ">="), ("until", "<")):
                name = f"{column}_{bound}"
                if (moment := getattr(self, name)) is not None:
                    add(f"{column}_at {comparison} {{}}", _moment(name, moment))
        return " AND ".join(conditions)


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
    query, parameters = page_query(search, limit=limit + 1, after=after)
    rows = await database.fetch(query, *parameters)
    page = [dict(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return page, None
    return page, Cursor(page[-1]["received_at"], page[-1]["id"])


def page_query(search: Search, *, limit: int, after: Cursor | None) -> tuple[str, list[object]]:
    """The SQL of a page, and its parameters.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    parameters: list[object] = []

    def one_list(part: Search) -> str:
        where = part.where(parameters)
        if after is not None:
            parameters.extend([after.received_at, after.id])
            where += f" AND (received_at, id) < (${len(parameters) - 1}, ${len(parameters)})"
        select = f"SELECT {SUMMARY_COLUMNS} FROM incoming_emails WHERE"  # noqa: S608 - of constants
        return f"{select} {where} {order}"

    order = f"ORDER BY received_at DESC, id DESC LIMIT {limit:d}"
    # The index on state and time has one state's emails in the order of the list, several states'
    # not: with those the planner may read the archive in the order of time and drop most of it.
    states = dict.fromkeys(search.status)
    parts = [one_list(attrs.evolve(search, status=(state,))) for state in states] or [
        one_list(search)
    ]
    if len(parts) == 1:
        return parts[0], parameters
    return f"({') UNION ALL ('.join(parts)}) {order}", parameters


async def count_matching(database: Database, search: Search) -> int:
    """How many emails are meant.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    parameters: list[object] = []
    where = search.where(parameters)
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
        retried += await operators.retry_many(database, [row["id"] for row in page], by=by)
        if after is None:
            return retried


async def read_email(database: Database, email_id: UUID) -> dict[str, Any] | None:
    """Every column of an email."""
    row = await database.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    return dict(row) if row is not None else None


async def erase(pool: "asyncpg.Pool[asyncpg.Record]", email_id: UUID) -> bool:
    """Delete an email for good, whatever its state, with its files and its copy in the quarantine.

    A worker that holds it loses its claim; a message for it does nothing.

    Returns:
        Whether it was there.
    """
    async with pool.acquire() as connection, connection.transaction():
        is_gone = bool(await connection.fetchval(DELETE, email_id))
        # By a statement of its own, which begins when the email is locked: so it sees the files
        # that whoever had it locked before has made rows of.
        await attachments.erase(connection, [email_id])
    return is_gone


def _check_text(name: str, text: str | None) -> None:
    if text is not None and text != fit_text(text):
        raise SearchError(name, "holds a character that no email has: leave it out")


def _containing(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _moment(name: str, moment: datetime) -> datetime:
    try:
        return in_utc(moment)
    except OverflowError as error:
        raise SearchError(name, "lies outside the calendar") from error
