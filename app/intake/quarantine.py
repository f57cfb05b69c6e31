"""The quarantine: refused webhooks are kept for a while, and verified again when asked.

A wrong secret or a broken template must not lose a night's email. A stranger must not fill the
disk either: rows, bytes, age and the share of one sender's address are bounded, and what does not
fit is counted. What nobody signed shares a part only, so that a webhook of Zendesk's with a broken
template finds room however many strangers come.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.intake.row_writer import Connection, NotStoredError, RowWriter
from app.models.quarantined_webhook import RefusalReason
from app.settings import Settings
from app.telemetry.logs import is_told

log = structlog.get_logger(__name__)

Database: TypeAlias = "Connection | asyncpg.Pool[asyncpg.Record]"

BATCH_ROWS = 64
MAX_WAITING = 512
PAGE_ROWS = 100
# A page is held in memory, and admitted with one INSERT that has to keep the Intake's deadline.
PAGE_BYTES = 8 * 1024 * 1024
EXPIRED_AT_ONCE = 1_000
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
# Zendesk's own headers have some 200 characters, and what a sender is told some hundred.
LONGEST_HEADER = 512
LONGEST_DETAIL = 10_000

DELETE_EXPIRED = """
DELETE FROM quarantined_webhooks WHERE id IN (
    SELECT id FROM quarantined_webhooks WHERE received_at < $1 ORDER BY received_at LIMIT $2
)
"""
# Rows of an older version know the size of their body alone.
USED = """
SELECT count(*) AS all_rows, coalesce(sum(greatest(kept_bytes, size)), 0)::bigint AS all_bytes,
    count(*) FILTER (WHERE NOT is_signed) AS unsigned_rows,
    coalesce(sum(greatest(kept_bytes, size)) FILTER (WHERE NOT is_signed), 0)::bigint
        AS unsigned_bytes
FROM quarantined_webhooks
"""
USED_BY_ADDRESS = """
SELECT remote_address, count(*) AS rows, sum(greatest(kept_bytes, size))::bigint AS bytes
FROM quarantined_webhooks
WHERE remote_address = ANY($1::text[]) AND NOT is_signed GROUP BY 1
"""
INSERT = """
INSERT INTO quarantined_webhooks
    (id, received_at, reason, detail, remote_address, headers, body, size, kept_bytes, is_signed)
SELECT * FROM unnest(
    $1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::json[], $7::bytea[],
    $8::int[], $9::int[], $10::boolean[]
)
ON CONFLICT (id) DO NOTHING
"""
COUNT_DROPPED = """
INSERT INTO quarantine_drops AS drops (day, dropped) VALUES ($1, $2)
ON CONFLICT (day) DO UPDATE SET dropped = drops.dropped + excluded.dropped
"""
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


class Quarantine(RowWriter[Refusal, bool]):
    """Keeps refused webhooks; the answer to each is whether there was room for it."""

    def __init__(self, settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        super().__init__(
            pool,
            batch_rows=BATCH_ROWS,
            max_waiting=MAX_WAITING,
            deadline_seconds=settings.intake_deadline_seconds,
        )
        self._max_rows = settings.quarantine_max_rows
        self._max_bytes = settings.quarantine_max_bytes
        self._max_age = timedelta(days=settings.quarantine_max_age_days)
        self._max_share = settings.quarantine_max_share
        self._unsigned_share = settings.quarantine_unsigned_share
        self._refused: Counter[RefusalReason] = Counter()

    async def write(
        self, connection: Connection, rows: Sequence[Refusal]
    ) -> Sequence[bool | NotStoredError]:
        async with connection.transaction():
            # The keeper comes every few seconds; room that is to be had now is taken now.
            await expire(connection, self._max_age)
            kept = await self._what_fits(connection, rows)
            if kept:
                await connection.execute(INSERT, *zip(*map(_columns, kept), strict=True))
            dropped = len(rows) - len(kept)
            if dropped:
                await connection.execute(COUNT_DROPPED, datetime.now(UTC).date(), dropped)
                log.warning("quarantine_full", dropped=dropped)
        self._say_what_is_refused(rows)
        ids = {refusal.id for refusal in kept}
        return [refusal.id in ids for refusal in rows]

    def _say_what_is_refused(self, rows: Sequence[Refusal]) -> None:
        """The 1st, 2nd, 4th, 8th ... of each reason is logged, so a flood does not fill the log."""
        for refusal in rows:
            self._refused[refusal.reason] += 1
            times = self._refused[refusal.reason]
            if is_told(times):
                log.warning("webhook_refused", reason=refusal.reason.value, times=times)

    async def _what_fits(self, connection: Connection, rows: Sequence[Refusal]) -> list[Refusal]:
        """Several web processes may overshoot by a batch each; bounds are not promises."""
        used = await connection.fetchrow(USED)
        addresses = list({refusal.remote_address for refusal in rows})
        by_address = await connection.fetch(USED_BY_ADDRESS, addresses)
        room = _Room(self._max_rows, self._max_bytes)
        unsigned = room.share(self._unsigned_share)
        of = {address: room.share(self._max_share) for address in addresses}
        if used:
            room.take(used["all_rows"], used["all_bytes"])
            unsigned.take(used["unsigned_rows"], used["unsigned_bytes"])
        for record in by_address:
            of[record["remote_address"]].take(record["rows"], record["bytes"])
        kept = []
        for refusal in rows:
            bounds = [room]
            if not refusal.is_signed:
                bounds += [unsigned, of[refusal.remote_address]]
            if all(bound.has_room_for(refusal.kept_bytes) for bound in bounds):
                kept.append(refusal)
                for bound in bounds:
                    bound.take(1, refusal.kept_bytes)
        return kept


@attrs.define
class _Room:
    """How many more webhooks and bytes one of the bounds allows."""

    rows: float
    bytes: float

    def share(self, share: float) -> "_Room":
        return _Room(self.rows * share, self.bytes * share)

    def has_room_for(self, size: int) -> bool:
        return self.rows > 0 and self.bytes >= size

    def take(self, rows: int, size: int) -> None:
        self.rows -= rows
        self.bytes -= size


async def expire(database: Database, max_age: timedelta) -> int:
    """Delete refused webhooks that are too old, some at once. Returns how many."""
    oldest = datetime.now(UTC) - max_age
    return int(
        (await database.execute(DELETE_EXPIRED, oldest, EXPIRED_AT_ONCE)).removeprefix("DELETE ")
    )


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


def _columns(refusal: Refusal) -> tuple[Any, ...]:
    return (
        refusal.id,
        refusal.received_at,
        refusal.reason,
        refusal.detail,
        refusal.remote_address,
        json.dumps(dict(refusal.headers)),
        refusal.body,
        refusal.size,
        refusal.kept_bytes,
        refusal.is_signed,
    )


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
