"""The keeper: one thread in each worker process that keeps the jobs going while handlers run.

It has an event loop and a few connections of its own, so a handler that blocks the loop of the
actors cannot keep it from extending leases, dispatching and rescuing.
"""

import asyncio
import faulthandler
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog

from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.jobs.archive import files_of
from app.jobs.canary import SendCanary
from app.jobs.changes import TELL_EVERY_SECONDS, ChangeTeller
from app.jobs.dispatcher import Dispatcher, Send
from app.jobs.duty import without_end
from app.jobs.heartbeat import BEAT_SECONDS, beat, leave, worker_name
from app.jobs.leases import (
    BEATS_PER_LEASE,
    LONGEST_PAUSE_OF_LEASE,
    HeldClaims,
    extend_once,
    fence,
    find_blocker,
    freeze,
    overdue,
    where_blocked,
)
from app.jobs.outcome import Outcome, result_of, tell
from app.jobs.own_loop import OwnLoopThread
from app.jobs.rescuer import Rescuer
from app.jobs.results import record_all
from app.jobs.transitions.ending import HandBack
from app.settings import Settings
from app.sync.asking import DeliveredEnds
from app.telemetry.metrics import FailureKind

log = structlog.get_logger(__name__)

POOL_SIZE = 3
RESCUE_EVERY_SECONDS = 5.0
WATCH_EVERY_SECONDS = 1.0
FENCES_PER_LEASE = 40
LAST_WORDS_SECONDS = 10.0
ALARM_MARGIN_SECONDS = 5.0
# An event loop that has not run by then is blocked.
FREEZE_SECONDS = 2.0
STDERR = 2
BLOCKED_EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: start it again


class Keeper(OwnLoopThread):
    """Extends leases, dispatches, rescues, says that this process lives, and watches over the event
    loop of the actors.

    Args:
        held_claims: the claims of this process, kept up to date by the actors.
        actors_loop: the event loop in which the handlers run.
        actors_thread_id: the thread of that loop.
        concurrency: how many emails this process handles at once.
        ahead: how many more of them it may claim at the moment.
        send: gives the message of some emails to the broker; it blocks.
        ring: called when there are files to be fetched.
        send_canary: gives the message of a canary to the broker; it blocks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        held_claims: HeldClaims,
        actors_loop: asyncio.AbstractEventLoop,
        actors_thread_id: int | None,
        concurrency: int,
        ahead: Callable[[], int],
        send: Send,
        ring: Callable[[], None],
        send_canary: SendCanary,
    ) -> None:
        super().__init__("keeper")
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._held_claims = held_claims
        self._actors_loop = actors_loop
        self._actors_thread_id = actors_thread_id
        self._concurrency = concurrency
        self._ahead = ahead
        self._send = send
        self._ring = ring
        self._send_canary = send_canary
        self._started_at = datetime.now(UTC)

    def stop(self) -> None:
        """Stop what it does, and wait for its connections to be closed."""
        self._end(LAST_WORDS_SECONDS)

    async def _keep(self) -> None:
        # A statement to a server that went silent must not hold up the leases.
        pool = await DB.make_pool(
            max_size=POOL_SIZE,
            command_timeout=max(self._settings.lease_seconds / BEATS_PER_LEASE, 1.0),
        )
        dispatcher = Dispatcher(
            pool,
            send=self._send,
            depth=self._settings.queue_depth,
            concurrency=self._concurrency,
            ahead=self._ahead,
            files=files_of(self._settings),
            ring=self._ring,
            send_canary=self._send_canary if self._settings.canary_seconds else None,
        )
        seconds = self._lease.total_seconds()
        rescuer = Rescuer(
            self._held_claims,
            lease=self._lease,
            lost_after=timedelta(seconds=self._settings.message_lost_seconds),
            concurrency=self._concurrency,
        )
        teller = ChangeTeller(self._held_claims)
        duties = [
            without_end("dispatch", dispatcher.run),
            without_end(
                "extend_leases",
                lambda: extend_once(pool, self._held_claims, self._lease),
                every_seconds=seconds / BEATS_PER_LEASE,
                longest_pause=seconds * LONGEST_PAUSE_OF_LEASE,
            ),
            without_end("fence", self._fence, every_seconds=min(seconds / FENCES_PER_LEASE, 1.0)),
            without_end(
                "rescue",
                lambda: self._rescue(pool, rescuer),
                every_seconds=RESCUE_EVERY_SECONDS,
                longest_pause=seconds * LONGEST_PAUSE_OF_LEASE,
            ),
            without_end(
                "heartbeat", lambda: self._beat(pool, dispatcher), every_seconds=BEAT_SECONDS
            ),
            without_end(
                "tell_changes",
                lambda: teller.run_once(pool),
                every_seconds=TELL_EVERY_SECONDS,
            ),
            without_end("watch", lambda: self._watch(pool), every_seconds=WATCH_EVERY_SECONDS),
        ]
        tasks = [asyncio.create_task(duty) for duty in duties]
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        faulthandler.cancel_dump_traceback_later()
        await asyncio.wait(tasks, timeout=LAST_WORDS_SECONDS / 2)
        await self._leave(pool)
        pool.terminate()

    async def _beat(self, pool: "asyncpg.Pool[asyncpg.Record]", dispatcher: Dispatcher) -> None:
        is_first = await beat(
            pool, name=worker_name(), threads=self._concurrency, started_at=self._started_at
        )
        dispatcher.be_first(is_first)

    async def _leave(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS / 4):
                await leave(pool, started_at=self._started_at)
        except CANNOT_ASK as error:
            log.warning("leave_failed", error=type(error).__name__)

    async def _rescue(self, pool: "asyncpg.Pool[asyncpg.Record]", rescuer: Rescuer) -> None:
        # Its own first, which also tells whether the database is there.
        await extend_once(pool, self._held_claims, self._lease)
        await rescuer.run_once(pool)

    def _wind_alarm(self) -> None:
        """Let the C runtime end this process unless the alarm is wound anew in time.

        A handler that holds the interpreter lock, as a regular expression can for hours, keeps
        every thread of Python from running, this one too.
        """
        seconds = self._settings.handler_timeout_seconds + LAST_WORDS_SECONDS + ALARM_MARGIN_SECONDS
        faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)

    async def _watch(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._wind_alarm()
        if overdue(self._held_claims.all()):
            await self._give_up(pool)

    async def _give_up(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """End this process: a handler blocks the event loop, or takes no cancellation.

        Its email counts this as a failed attempt; the others go back untried. None of them runs on
        meanwhile, for others may have the emails at once.
        """
        try:
            ran = await freeze(self._actors_loop, FREEZE_SECONDS)
            all_held = self._held_claims.all()
            # None, where the last of them ended meanwhile.
            late = overdue(all_held)
            if ran:
                event, place, outcome = "handler_not_cancelled", None, self._not_cancelled()
            else:
                event, place = "event_loop_blocked", where_blocked(self._actors_thread_id)
                outcome = self._blocked_at(place)
                blocker = find_blocker(self._actors_loop, all_held)
                late = late[:1] if blocker is None else [blocker]
            for held in late:
                log.critical(event, email_id=str(held.claim.email_id), place=place)
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                failed = [result_of(self._settings, held.claim, outcome) for held in late]
                others = [HandBack(held.claim) for held in all_held if held not in late]
                delivered = DeliveredEnds.from_settings(self._settings)
                stood = await record_all(pool, [*failed, *others], delivered=delivered)
                for result in failed:
                    tell(result, claim_stood=result.claim in stood)
        finally:
            # Nothing runs in it any more, whatever failed here. What was not recorded is rescued
            # when its lease runs out.
            os._exit(BLOCKED_EXIT_STATUS)

    def _blocked_at(self, place: str) -> Outcome:
        return Outcome(
            error=(
                f"the handler blocked the event loop at {place} beyond its "
                f"{self._settings.handler_timeout_seconds:g} seconds: await, or use "
                "asyncio.to_thread"
            ),
            kind=FailureKind.BLOCKED,
        )

    def _not_cancelled(self) -> Outcome:
        return Outcome(
            error=(
                f"the handler did not finish within {self._settings.handler_timeout_seconds:g} "
                "seconds, and took no cancellation: its process was ended"
            ),
            kind=FailureKind.TIMEOUT,
        )

    async def _fence(self) -> None:
        """Let no handler run on when its lease ends, the database being away."""
        held = fence(self._held_claims, self._lease)
        if held is not None:
            # Whatever blocks the loop or takes no cancellation, the next worker must not find it.
            log.critical(
                "handler_outlives_lease",
                email_id=str(held.claim.email_id),
                place=where_blocked(self._actors_thread_id),
            )
            os._exit(BLOCKED_EXIT_STATUS)
