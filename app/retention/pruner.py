"""The pruner: removes what is old enough, a little at a time.

Each batch is one short transaction, which waits for no lock; after it the pruner rests for several
times as long as it took, so that it never has more than a share of the database. Whatever it was
ended in is removed whole or not at all.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import structlog

from app.jobs.chores import Chore, ChoreContext, Pool
from app.models.incoming_email import ProcessingStatus
from app.retention.marks import BEGINNING, read_mark, write_mark
from app.retention.pace import Pace
from app.retention.record_sweeps import AuditSweep, BulkSweep, EventSweep, ToldSweep
from app.retention.sweeps import Count, EmailSweep, FileSweep, Sweep
from app.search.entries import LOCK_SHARED
from app.settings import Settings
from app.telemetry.metrics import PRUNED, Pruned

log = structlog.get_logger(__name__)

NAME = "prune"
PAGE = 2_000
NOTE_EVERY_SECONDS = 5.0
# Before a batch has locked anything else. A trigger asks for it anyway; and while an archive is
# indexed it is held most of the time, which says nothing of what a batch costs others.
ENTER = f"SET LOCAL lock_timeout = '5s'; {LOCK_SHARED}"
# Inside of a batch: nobody else waits longer for what it has locked.
LIMITS = "SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '5s'"
IN_VAIN_AT_MOST = 20
HELD_UP = (
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
)


def sweeps_of(settings: Settings, now: datetime) -> list[Sweep]:
    """What is removed by these settings. Whole emails come first: then their texts need no turn."""

    def before(days: float) -> datetime:
        return now - timedelta(days=days)

    sweeps: list[Sweep] = []
    whole = {
        ProcessingStatus.COMPLETED: settings.keep_completed_days,
        ProcessingStatus.FAILED: settings.keep_failed_days,
    }
    for status, days in whole.items():
        if days:
            sweeps.append(EmailSweep(Pruned(status.value), status, before(days)))
    if settings.keep_bodies_days:
        for status, days in whole.items():
            since = before(days) if days else BEGINNING
            until = before(settings.keep_bodies_days)
            sweeps.append(EmailSweep(Pruned.BODIES, status, until, since))
    if settings.keep_attachments_days:
        sweeps.append(FileSweep(before(settings.keep_attachments_days)))
    if settings.keep_events_days:
        sweeps.append(EventSweep(before(settings.keep_events_days)))
        sweeps.append(ToldSweep(before(settings.keep_events_days)))
    if settings.keep_audit_days:
        sweeps.append(AuditSweep(before(settings.keep_audit_days)))
        sweeps.append(BulkSweep(before(settings.keep_audit_days)))
    return sweeps


def prune_chore(settings: Settings) -> Chore:
    """The chore by these settings."""
    return Chore(
        NAME,
        settings.prune_every_seconds,
        lambda context: Pruner(context).run(sweeps_of(settings, datetime.now(UTC))),
    )


async def survey(pool: Pool, sweeps: Sequence[Sweep]) -> list[tuple[Sweep, Count]]:
    """What would be removed now."""
    return [(sweep, await sweep.count(pool)) for sweep in sweeps]


class Pruner:
    """One run of the chore."""

    def __init__(self, context: ChoreContext) -> None:
        self._context = context
        self._pool = context.pool
        self._pace = Pace()
        self._in_vain = 0
        self._done: dict[str, int] = {}
        self._noted_at = time.monotonic()

    async def run(self, sweeps: Sequence[Sweep]) -> str | None:
        """Remove all that is due. Returns what was done, in words; None where nothing was.

        Raises:
            CancelledError: the process stops; it is cancelled between two batches.
            Exception: the database is away, or lets nothing be removed.
        """
        for sweep in sweeps:
            await self._sweep(sweep)
        if self._context.stopping.is_set():
            # Another process goes on at once.
            await self._context.note(f"ended between; {self._told()}")
            raise asyncio.CancelledError
        return self._told() if self._done else None

    async def _sweep(self, sweep: Sweep) -> None:
        since = max(await read_mark(self._pool, sweep.name), sweep.since)
        looks_at_all = since == sweep.since
        after, held_since = sweep.least_id, None
        while not self._context.stopping.is_set():
            began = time.monotonic()
            page = await sweep.page(self._pool, since, after, PAGE)
            await asyncio.sleep(time.monotonic() - began)
            due = [found for found in page if found.is_due]
            gone = await self._remove(sweep, [found.id for found in due if found.is_free])
            # The oldest come first.
            held_since = held_since or next((one.at for one in due if one.id not in gone), None)
            since, after = (page[-1].at, page[-1].id) if page else (sweep.before, after)
            await write_mark(
                self._pool, sweep.name, held_since or since, looked_at_all=looks_at_all
            )
            if not page:
                break

    async def _remove(self, sweep: Sweep, ids: Sequence[Any]) -> set[Any]:
        """Remove them batch by batch. Returns which are gone: none that is locked."""
        gone: set[Any] = set()
        start = 0
        while start < len(ids) and not self._context.stopping.is_set():
            batch = ids[start : start + self._pace.rows]
            began = time.monotonic()
            try:
                removed, seconds = await self._remove_at_once(sweep, batch)
            except HELD_UP as error:
                log.info("prune_held_up", what=sweep.name, error=type(error).__name__)
                self._in_vain += 1
                if self._in_vain == IN_VAIN_AT_MOST:
                    raise
                # One alone is passed by, like what is locked.
                start += len(batch) == 1
                rest = self._pace.held_up(time.monotonic() - began)
            else:
                gone |= removed
                start += len(batch)
                self._in_vain = 0
                rest = self._pace.removed(len(batch), seconds)
            await self._note(sweep)
            await asyncio.sleep(rest)
        return gone

    async def _remove_at_once(self, sweep: Sweep, ids: Sequence[Any]) -> tuple[set[Any], float]:
        """Remove a batch. Returns what is gone, and how many seconds that took."""
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                await connection.execute(ENTER)
                began = time.monotonic()
                await connection.execute(LIMITS)
                gone = await sweep.remove(connection, ids)
            seconds = time.monotonic() - began
        PRUNED.labels(sweep.kind).inc(len(gone))
        if gone:
            self._done[sweep.what] = self._done.get(sweep.what, 0) + len(gone)
        return gone, seconds

    async def _note(self, sweep: Sweep) -> None:
        if time.monotonic() >= self._noted_at + NOTE_EVERY_SECONDS:
            self._noted_at = time.monotonic()
            await self._context.note(f"at the {sweep.what} now; {self._told()}")

    def _told(self) -> str:
        done = ", ".join(f"{count:,} {what}" for what, count in self._done.items())
        return f"removed: {done or 'nothing'}"
