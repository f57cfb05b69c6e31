"""Refused webhooks: what is kept of each, and how they are found, listed and discarded."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import attrs

from app.models.quarantined_webhook import RefusalReason

PAGE_ROWS = 100
# A page is held in memory, and admitted with one INSERT that has to keep the Intake's deadline.
PAGE_BYTES = 8 * 1024 * 1024
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
# Zendesk's own headers have some 200 characters, and what a sender is told some hundred.
LONGEST_HEADER = 512
LONGEST_DETAIL = 10_000

SELECT_PAGE = """
SELECT id, received_at, reason, detail, remote_address, headers, body, is_signed
FROM (
    SELECT *, sum(size) OVER (ORDER BY received_at, id) - size AS bytes_before
    FROM (
        SELECT * FROM quarantined_webhooks
        WHERE (received_at, id) > ($1, $2) AND ($3::text IS NULL OR reason = $3)
        ORDER BY received_at, id
        LIMIT $4
    ) AS next
) AS counted
WHERE bytes_before < $5
ORDER BY received_at, id
"""
SELECT_SUMMARIES = """
SELECT id, received_at, reason, detail, remote_address, size, is_signed
FROM quarantined_webhooks
WHERE (received_at, id) > ($1, $2) AND ($3::text IS NULL OR reason = $3)
ORDER BY received_at, id
LIMIT $4
"""
# It sorts all summaries, which the bounds of the quarantine keep few.
SELECT_SIGNED_FIRST = """
SELECT id, received_at, reason, detail, remote_address, size, is_signed
FROM quarantined_webhooks
WHERE (NOT is_signed, received_at, id) > ($1, $2, $3)
ORDER BY NOT is_signed, received_at, id
LIMIT $4
"""
SELECT_ONE = """
SELECT id, received_at, reason, detail, remote_address, headers, body, is_signed
FROM quarantined_webhooks WHERE id = $1
"""


def _cut_detail(detail: str) -> str:
    return detail[:LONGEST_DETAIL]


def _cut_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value[:LONGEST_HEADER] for name, value in headers.items()}


@attrs.frozen
class Summary:
    """What a list tells of a refused webhook."""

    id: UUID
    received_at: datetime
    reason: RefusalReason
    detail: str
    remote_address: str
    size: int
    is_signed: bool


@attrs.frozen
class Refusal:
    """A refused webhook."""

    id: UUID = attrs.field(kw_only=True)
    received_at: datetime = attrs.field(factory=lambda: datetime.now(UTC), kw_only=True)
    reason: RefusalReason
    detail: str = attrs.field(converter=_cut_detail)
    remote_address: str
    headers: Mapping[str, str] = attrs.field(converter=_cut_headers)
    body: bytes | None
    """None where it was too large to be read."""
    is_signed: bool = False
    """Its signature was right when it came."""

    @property
    def size(self) -> int:
        return len(self.body or b"")

    @property
    def kept_bytes(self) -> int:
        """What is stored of it, and what the bounds are about."""
        return self.size + len(json.dumps(self.headers)) + len(self.detail.encode())


async def find_refusal(pool: "asyncpg.Pool[asyncpg.Record]", refusal_id: UUID) -> Refusal | None:
    """A refused webhook by its id."""
    record = await pool.fetchrow(SELECT_ONE, refusal_id)
    return _to_refusal(record) if record else None


async def refusals(
    pool: "asyncpg.Pool[asyncpg.Record]", *, reason: RefusalReason | None = None
) -> AsyncIterator[list[Refusal]]:
    """All refused webhooks, page by page, the oldest first. Those read may be discarded."""
    after = BEFORE_ALL
    while page := [
        _to_refusal(record)
        for record in await pool.fetch(SELECT_PAGE, *after, reason, PAGE_ROWS, PAGE_BYTES)
    ]:
        yield page
        after = (page[-1].received_at, page[-1].id)


async def summaries(
    pool: "asyncpg.Pool[asyncpg.Record]",
    *,
    reason: RefusalReason | None = None,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[Summary]:
    """Refused webhooks after that one, the oldest first, without their bodies."""
    records = await pool.fetch(SELECT_SUMMARIES, *(after or BEFORE_ALL), reason, limit)
    return [_to_summary(record) for record in records]


async def summaries_signed_first(
    pool: "asyncpg.Pool[asyncpg.Record]",
    *,
    limit: int,
    after: tuple[bool, datetime, UUID] | None = None,
) -> list[Summary]:
    """Refused webhooks after that one (signed or not, its time, its id): those that Zendesk signed
    first, then the oldest, so that no number of strangers hides them. Without their bodies."""
    is_signed, *rest = after or (True, *BEFORE_ALL)
    records = await pool.fetch(SELECT_SIGNED_FIRST, not is_signed, *rest, limit)
    return [_to_summary(record) for record in records]


async def discard(pool: "asyncpg.Pool[asyncpg.Record]", ids: Sequence[UUID]) -> None:
    """Delete refused webhooks for good."""
    await pool.execute("DELETE FROM quarantined_webhooks WHERE id = ANY($1::uuid[])", ids)


async def count_dropped(pool: "asyncpg.Pool[asyncpg.Record]") -> int:
    """How many refused webhooks were not kept so far, because the quarantine was full."""
    dropped: int = await pool.fetchval(
        "SELECT coalesce(sum(dropped), 0)::int FROM quarantine_drops"
    )
    return dropped


def _to_summary(record: asyncpg.Record) -> Summary:
    return Summary(**{**record, "reason": RefusalReason(record["reason"])})


def _to_refusal(record: asyncpg.Record) -> Refusal:
    return Refusal(
        id=record["id"],
        received_at=record["received_at"],
        reason=RefusalReason(record["reason"]),
        detail=record["detail"],
        remote_address=record["remote_address"],
        headers=json.loads(record["headers"]),
        body=record["body"],
        is_signed=record["is_signed"],
    )
