"""The quarantine: refused webhooks are kept for a while, and verified again when asked.

A wrong secret or a broken template must not lose a night's email. A stranger must not fill the
disk either: rows, bytes, age and the share of one sender's address are bounded, and what does not
fit is counted. What nobody signed shares a part only, so that a webhook of Zendesk's with a broken
template finds room however many strangers come.
"""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import attrs
import structlog

from app.intake.refusals import Refusal
from app.intake.row_writer import Connection, NotStoredError, RowWriter
from app.models.quarantined_webhook import RefusalReason
from app.settings import Settings
from app.telemetry.logs import is_told

log = structlog.get_logger(__name__)

Database: TypeAlias = "Connection | asyncpg.Pool[asyncpg.Record]"

BATCH_ROWS = 64
MAX_WAITING = 512
EXPIRED_AT_ONCE = 1_000
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
            kept = await self.keep(connection, rows)
            dropped = len(rows) - len(kept)
            if dropped:
                await connection.execute(COUNT_DROPPED, datetime.now(UTC).date(), dropped)
                log.warning("quarantine_full", dropped=dropped)
        self._say_what_is_refused(rows)
        ids = {refusal.id for refusal in kept}
        return [refusal.id in ids for refusal in rows]

    async def keep(self, connection: Connection, rows: Sequence[Refusal]) -> list[Refusal]:
        """Keep what there is room for, in the caller's transaction. Returns what that is; the rest
        is not counted as dropped, for it can be brought again."""
        # The keeper comes every few seconds; room that is to be had now is taken now.
        await expire(connection, self._max_age)
        kept = await self._what_fits(connection, rows)
        if kept:
            await connection.execute(INSERT, *zip(*map(_columns, kept), strict=True))
        return kept

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
    """Delete refused webhooks that are too old, some at once. Returns how many.

    Args:
        max_age: 0 keeps all.
    """
    if not max_age:
        return 0
    oldest = datetime.now(UTC) - max_age
    return int(
        (await database.execute(DELETE_EXPIRED, oldest, EXPIRED_AT_ONCE)).removeprefix("DELETE ")
    )


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
