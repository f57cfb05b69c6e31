"""The quarantine: refused webhooks are kept for a while, and verified again when asked.

A wrong secret or a broken template must not lose a night's email. A stranger must not fill the
disk either: rows, bytes, age and the share of one sender's address are bounded, and what does not
fit is counted.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.intake.group_commit import Connection, GroupCommit, NotStoredError
from app.models.quarantined_webhook import RefusalReason
from app.settings import Settings

log = structlog.get_logger(__name__)

BATCH_ROWS = 64
MAX_WAITING = 512
PAGE_ROWS = 100
# A page is held in memory, and admitted with one INSERT that has to keep the Intake's deadline.
PAGE_BYTES = 8 * 1024 * 1024
EXPIRED_AT_ONCE = 1_000

DELETE_EXPIRED = """
DELETE FROM quarantined_webhooks WHERE id IN (
    SELECT id FROM quarantined_webhooks WHERE received_at < $1 ORDER BY received_at LIMIT $2
)
"""
USED = "SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS bytes FROM quarantined_webhooks"
USED_BY_ADDRESS = """
SELECT remote_address, count(*) AS rows, sum(size)::bigint AS bytes FROM quarantined_webhooks
WHERE remote_address = ANY($1::text[]) GROUP BY 1
"""
INSERT = """
INSERT INTO quarantined_webhooks
    (id, received_at, reason, detail, remote_address, headers, body, size)
SELECT * FROM unnest(
    $1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::json[], $7::bytea[],
    $8::int[]
)
"""
COUNT_DROPPED = """
INSERT INTO quarantine_drops AS drops (day, dropped) VALUES ($1, $2)
ON CONFLICT (day) DO UPDATE SET dropped = drops.dropped + excluded.dropped
"""
SELECT_PAGE = """
SELECT id, received_at, reason, detail, remote_address, headers, body
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
SELECT_ONE = """
SELECT id, received_at, reason, detail, remote_address, headers, body
FROM quarantined_webhooks WHERE id = $1
"""


@attrs.frozen
class Refusal:
    """A refused webhook."""

    id: UUID = attrs.field(kw_only=True)
    received_at: datetime = attrs.field(factory=lambda: datetime.now(UTC), kw_only=True)
    reason: RefusalReason
    detail: str
    remote_address: str
    headers: Mapping[str, str]
    body: bytes | None
    """None where it was too large to be read."""

    @property
    def size(self) -> int:
        return len(self.body or b"")


class Quarantine(GroupCommit[Refusal, bool]):
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
        self._refused: Counter[RefusalReason] = Counter()

    async def write(
        self, connection: Connection, rows: Sequence[Refusal]
    ) -> Sequence[bool | NotStoredError]:
        async with connection.transaction():
            await connection.execute(
                DELETE_EXPIRED, datetime.now(UTC) - self._max_age, EXPIRED_AT_ONCE
            )
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
            if times & (times - 1) == 0:
                log.warning("webhook_refused", reason=refusal.reason.value, times=times)

    async def _what_fits(self, connection: Connection, rows: Sequence[Refusal]) -> list[Refusal]:
        """Several web processes may overshoot by a batch each; bounds are not promises."""
        used = await connection.fetchrow(USED)
        addresses = list({refusal.remote_address for refusal in rows})
        by_address = await connection.fetch(USED_BY_ADDRESS, addresses)
        all_rows, all_bytes = (used["rows"], used["bytes"]) if used else (0, 0)
        rows_of = Counter({record["remote_address"]: record["rows"] for record in by_address})
        bytes_of = Counter({record["remote_address"]: record["bytes"] for record in by_address})
        kept = []
        for refusal in rows:
            address = refusal.remote_address
            if (
                all_rows < self._max_rows
                and all_bytes + refusal.size <= self._max_bytes
                and rows_of[address] < self._max_rows * self._max_share
                and bytes_of[address] + refusal.size <= self._max_bytes * self._max_share
            ):
                kept.append(refusal)
                all_rows += 1
                all_bytes += refusal.size
                rows_of[address] += 1
                bytes_of[address] += refusal.size
        return kept


async def find_refusal(pool: "asyncpg.Pool[asyncpg.Record]", refusal_id: UUID) -> Refusal | None:
    """A refused webhook by its id."""
    record = await pool.fetchrow(SELECT_ONE, refusal_id)
    return _to_refusal(record) if record else None


async def refusals(
    pool: "asyncpg.Pool[asyncpg.Record]", *, reason: RefusalReason | None = None
) -> AsyncIterator[list[Refusal]]:
    """All refused webhooks, page by page, the oldest first. Those read may be discarded."""
    after: tuple[Any, Any] = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
    while page := [
        _to_refusal(record)
        for record in await pool.fetch(SELECT_PAGE, *after, reason, PAGE_ROWS, PAGE_BYTES)
    ]:
        yield page
        after = (page[-1].received_at, page[-1].id)


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
    )


def _to_refusal(record: asyncpg.Record) -> Refusal:
    return Refusal(
        id=record["id"],
        received_at=record["received_at"],
        reason=RefusalReason(record["reason"]),
        detail=record["detail"],
        remote_address=record["remote_address"],
        headers=json.loads(record["headers"]),
        body=record["body"],
    )
