"""The deliverer: takes what is due, has it delivered, and records what became of it.

Every worker process has one, as it has an archivist; no message asks for it, so none can be lost.
What one holds when it is killed falls due again with its lease.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence

import asyncpg
import attrs
import structlog

from app.database.errors import DATABASE_AWAY
from app.lease_clock import lease_time
from app.pauses import GrowingPause
from app.sync import transitions
from app.sync.answers import Health, Verdict
from app.sync.breaker import Breaker, Probe
from app.sync.claimer import Claimer
from app.sync.claims import VANISHED, Claimed
from app.sync.event import EventMaker
from app.sync.limits import Limits
from app.sync.recorder import Recorder, Stored, Tried
from app.sync.sending import Delivers, Sender, batches_of, lease_ends
from app.sync.transitions import End, Outcome, Result
from app.sync.verdict_results import LONGEST_REST, result_of, tell

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
# Many are claimed with one statement: few places that are free are waited with for so long.
GATHER_SECONDS = 0.02
EXTENSIONS_PER_LEASE = 4
# A lease that is nearly over is no time to begin in.
LATEST_SHARE_OF_LEASE = 0.5
# Of all that is fetched with one statement, however large the emails are.
MOST_CLAIMED_BYTES = 512 * 1024 * 1024
TEXTS_OF_AN_EMAIL = 4
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0
WORN_OUT = "delivery failed for good: no try is left"


class Deliverer:
    """Works in the event loop it is made in.

    Args:
        pool: connections to the database.
        receiver: sends.
        maker: makes events of what is claimed.
        breaker: of that receiver.
        worker: how this process is called in an email's story.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        receiver: Delivers,
        maker: EventMaker,
        breaker: Breaker,
        limits: Limits,
        worker: str,
    ) -> None:
        self._pool = pool
        self._claimer = Claimer(pool, breaker.name, maker, limits)
        self._sender = Sender(receiver)
        self._maker = maker
        self._breaker = breaker
        self._limits = limits
        self._recorder = Recorder(pool, breaker, worker=worker, in_order=limits.in_order)
        self._held: dict[asyncio.Task[None], list[Claimed]] = {}
        self._window = float(limits.concurrency)
        """Requests that may be under way: fewer where the receiver gets too much."""
        self._places = asyncio.Semaphore(limits.concurrency)
        """What is to be sent alone comes in greater numbers than there are places."""
        self._requests = itertools.count()
        self._refused_at = 0.0
        self._changed = asyncio.Event()

    def ring(self) -> None:
        """There is something to deliver. To be called in its event loop."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver for ever.

        Raises:
            Exception: the database is away; call it again after a pause.
        """
        while True:
            self._changed.clear()
            begun = await self._begin()
            if not begun:
                await self._wait(POLL_SECONDS)
            elif self._free() < max(1, int(self._window) // 2):
                await asyncio.sleep(GATHER_SECONDS)

    async def run_once(self) -> int:
        """Deliver what is due now, as much as there is room for. Returns how many requests."""
        begun = await self._begin()
        if begun:
            await asyncio.wait(begun)
        return len(begun)

    async def extend(self) -> None:
        """Keep what is being delivered; let go of what others have by now.

        Raises:
            Exception: the database is away.
        """
        held = dict(self._held)
        mine = [claimed for batch in held.values() for claimed in batch]
        if not mine:
            return
        until = lease_ends(self._limits.lease)
        standing = await transitions.extend(self._pool, mine, lease=self._limits.lease)
        for task, batch in held.items():
            lost = sum(claimed.token not in standing for claimed in batch)
            if lost == len(batch) or (lost and self._sender.is_sending(task)):
                # Of several one may be erased by now, and the rest is sent again without it.
                task.cancel()
            elif all(standing.get(claimed.token, False) for claimed in batch):
                self._sender.extend(task, until)

    async def close(self, seconds: float) -> None:
        """Wait so long for what is under way, then give the rest back."""
        if self._held:
            await asyncio.wait([*self._held], timeout=seconds)
        for task in [*self._held]:
            task.cancel()
        if self._held:
            await asyncio.wait([*self._held], timeout=seconds)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _free(self) -> int:
        """How many more requests may be begun."""
        return max(0, int(self._window) - len(self._held))

    async def _begin(self) -> list["asyncio.Task[None]"]:
        """Claim and send, as much as there is room for."""
        if not (room := self._free()):
            return []
        until = lease_ends(self._limits.lease)
        most = min(room * self._limits.batch, max(1, self._most_claimed))
        claimed = await self._claimer.claim(most)
        if claimed:
            return [
                self._start(batch, None, until)
                for batch in batches_of(claimed, self._maker, self._limits)
            ]
        until = lease_ends(self._limits.lease)
        probe = await self._breaker.begin_probe(lost_after=self._limits.probe_lost_after)
        if probe is None:
            return []
        claimed = await self._claimer.claim(1, probe.token)
        if not claimed:
            await self._breaker.fail_probe(probe, None)
            return []
        return [self._start(claimed[:1], probe, until)]

    @property
    def _most_claimed(self) -> int:
        return MOST_CLAIMED_BYTES // (TEXTS_OF_AN_EMAIL * self._maker.most_bytes)

    def _start(
        self, batch: list[Claimed], probe: Probe | None, until: float
    ) -> "asyncio.Task[None]":
        name = f"deliver-{batch[0].id}"
        task = asyncio.create_task(self._settle(batch, probe, until), name=name)
        self._held[task] = batch

        def is_done(_: object) -> None:
            del self._held[task]
            self._changed.set()

        task.add_done_callback(is_done)
        return task

    async def _settle(self, batch: list[Claimed], probe: Probe | None, until: float) -> None:
        """See to what is sent together, whatever happens."""
        claimed_at = time.monotonic()
        latest = lease_time() + self._limits.lease.total_seconds() * LATEST_SHARE_OF_LEASE
        try:
            async with self._places:
                await self._settle_in_time(batch, probe, claimed_at, latest, until)
        except (asyncio.CancelledError, TimeoutError):
            # This process ends, or has lost some of it, or cannot extend it.
            given_back = [Result(one, Outcome.LATER) for one in batch]
            with contextlib.suppress(Exception):
                await self._record(given_back, None)
        except Exception as error:
            # The lease runs out, and it is tried again.
            log.error("delivery_not_settled", error=type(error).__name__, exc_info=error)

    async def _settle_in_time(
        self,
        batch: list[Claimed],
        probe: Probe | None,
        claimed_at: float,
        latest: float,
        until: float,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of a task
        # Where a setting left fewer tries than it has had, it still has the one that it waits for.
        worn_out = [
            one
            for one in batch
            if one.is_taken_over and one.failed_tries >= len(self._limits.pauses)
        ]
        left = [one for one in batch if one not in worn_out]
        events = [self._maker.make(one) for one in left]
        results = [Result(one, Outcome.FAILED, error=VANISHED, told=WORN_OUT) for one in worn_out]
        health, reason = None, ""
        if lease_time() > latest or (probe is None and self._stopped_at() > claimed_at):
            # It was stopped for a while, and others are about to have it; or the receiver was found
            # down, or to want nothing, while it waited for a place.
            results = [Result(one, Outcome.LATER) for one in batch]
        elif left:
            verdict = await self._sender.send(events, task, until)
            is_alone = len(left) == 1
            results += [
                result_of(
                    one,
                    verdict,
                    is_alone=is_alone,
                    pauses=self._limits.pauses,
                    is_probe=probe is not None,
                )
                for one in left
            ]
            health, reason = await self._heed(verdict, probe), verdict.reason or ""
            probe = None
        if probe is not None:
            await self._breaker.fail_probe(probe, None)
        await self._record(results, health, reason)

    def _stopped_at(self) -> float:
        """When this process last learned that the receiver is not to be delivered to."""
        return max(self._refused_at, self._breaker.found_open_at)

    async def _heed(self, verdict: Verdict, probe: Probe | None) -> Health | None:
        """What the verdict means for all further deliveries. Returns what the recorder is to tell
        the breaker."""
        if verdict.slows_down:
            self._window = max(1.0, self._window / 2)
        elif verdict.is_delivered:
            self._window = min(self._limits.concurrency, self._window + 1 / self._window)
        if verdict.health is Health.GONE or (verdict.retry_after and verdict.health is Health.DOWN):
            self._refused_at = time.monotonic()
        if verdict.health is Health.GONE:
            await self._breaker.pause(verdict.reason or "")
        elif verdict.health is Health.DOWN and verdict.retry_after is not None:
            await self._breaker.rest(min(verdict.retry_after, LONGEST_REST), verdict.reason or "")
        if probe is not None and verdict.health is not Health.UP:
            await self._breaker.fail_probe(probe, verdict.reason or "")
            return None
        return verdict.health

    async def _record(
        self, results: Sequence[Result], health: Health | None, reason: str = ""
    ) -> None:
        """Record how tries ended, however long the database is away or a row is locked."""
        request = next(self._requests)
        tried = [Tried(result, health, request, reason) for result in results]
        for stored in await asyncio.gather(*(self._store(one) for one in tried)):
            tell(stored.result, stored.end)

    async def _store(self, tried: Tried) -> Stored:
        pause = GrowingPause(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            try:
                stored = await self._recorder.store(tried)
            except DATABASE_AWAY:
                # Until the claim stands no longer: then others deliver.
                pass
            else:
                if stored.end is not End.BUSY:
                    return stored
                # The breaker is told once, and what it said then of the try holds.
                tried = attrs.evolve(tried, result=stored.result, health=None)
            await asyncio.sleep(pause.next_seconds())
