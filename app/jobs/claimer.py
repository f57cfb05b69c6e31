"""From the message that asks for emails to their claims: many with one statement, as places for
their handlers become free."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar
from uuid import UUID, uuid4

import asyncpg
import structlog

from app.handlers.loading import Handler
from app.handlers.surroundings import Surroundings
from app.jobs import canary
from app.jobs.claimed_email import LateColumns
from app.jobs.heartbeat import worker_name
from app.jobs.leases import LONGEST_PAUSE_OF_LEASE, HeldClaims
from app.jobs.patience import LONGEST_PAUSE_SECONDS, patiently
from app.jobs.places import Places
from app.jobs.process import Processor
from app.jobs.progress import Notes
from app.jobs.results import Results
from app.jobs.transitions import claiming
from app.jobs.transitions.claiming import Claimed, Refusal
from app.lease_clock import lease_time
from app.pauses import GrowingPause
from app.settings import Settings
from app.sync.asking import DeliveredEnds

T = TypeVar("T")
# The ids of emails, and by which token the claim that is made of each is known again.
Wanted: TypeAlias = Mapping[UUID, UUID]

log = structlog.get_logger(__name__)

# How long emails wait here for a place, before other workers may have them.
PLACE_SECONDS = 2.0
# How long a message is kept from the broker after that, so that no other one comes to a process
# that is full. RabbitMQ gives one half an hour.
FULL_SECONDS = 60.0
# How soon a suspect is sent again to see whether it is its turn.
SUSPECT_PAUSE = timedelta(seconds=5)
FIRST_BUSY_PAUSE_SECONDS = 0.05
LONGEST_BUSY_PAUSE_SECONDS = 1.0


class Claimer:
    """Claims emails and has each processed in a task of its own, over the pool of the event loop it
    is made and runs in.

    Args:
        late: whether handlers look at what is not always fetched.
        ring: called when ended emails are to be delivered.
    """

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        pool: "asyncpg.Pool[asyncpg.Record]",
        held_claims: HeldClaims,
        late: LateColumns,
        ring: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._late = late
        self._pool = pool
        self._held_claims = held_claims
        self._lease = timedelta(seconds=settings.lease_seconds)
        # Whoever lives is to be back before others may take over what it holds.
        self._longest_pause = min(
            LONGEST_PAUSE_SECONDS, settings.lease_seconds * LONGEST_PAUSE_OF_LEASE
        )
        self._worker = worker_name()
        self._suspect = asyncio.Lock()
        self._surroundings = Surroundings(settings, pool)
        self._places = Places(settings.worker_concurrency)
        self._processor = Processor(
            settings,
            handler,
            held_claims=held_claims,
            places=self._places,
            results=Results(
                pool,
                longest_pause=self._longest_pause,
                delivered=DeliveredEnds.from_settings(settings),
                ring=ring,
            ),
            notes=Notes(pool),
            surroundings=self._surroundings,
            late=late,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, email_ids: Sequence[UUID]) -> None:
        """Claim emails as places become free, and begin to process them.

        Returns when each is claimed, or needs no claim: it is finished, held by another worker or
        not yet due, since the message came twice or late. What finds no place is given back. The
        lease brings back what is lost with this process.
        """
        left: Wanted = {email_id: uuid4() for email_id in email_ids}
        until = time.monotonic() + PLACE_SECONDS
        busy: dict[UUID, UUID] = {}
        while left:
            made = await self._begin(left, until=until)
            if made is None:
                await self._give_back(list(left))
                await self._places.wait(FULL_SECONDS)
                break
            busy |= _of(made, left, Refusal.BUSY)
            left = {**_of(made, left, Refusal.NO_ROOM), **_without(left, made)}
        if busy:
            self._start("busy", self._take_when_free(busy))

    def ahead(self) -> int:
        """How many emails may be claimed beyond those that are handled. Any thread may ask."""
        return self._places.ahead

    async def take_canary(self, token: UUID) -> None:
        """Let a canary go through in a place for an email, when there is one."""
        share = await self._places.take(1, until=time.monotonic() + FULL_SECONDS)
        if share is not None:
            try:
                await canary.go_through(self._pool, token, lease=self._lease, worker=self._worker)
            finally:
                self._places.settle(share, [])

    def close(self) -> None:
        """Take nothing more. To be called in its event loop."""
        self._places.close()

    async def finish(self, seconds: float) -> None:
        """Take nothing more, and wait so long for what is in hand."""
        self.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._tasks:
                    await asyncio.wait(self._tasks)
                await self._processor.wait_for_all()
        if self._processor.is_idle:
            await self._surroundings.close()

    async def _begin(
        self, wanted: Wanted, *, until: float, suspects: bool = False
    ) -> "Made | None":
        """Claim as many as there are places for, the first ones, and begin to process them.

        Returns:
            What was made of those; None where no place was free in time.
        """
        share = await self._places.take(len(wanted), until=until)
        if share is None:
            return None
        claimed: list[Claimed] = []
        try:
            first = dict(itertools.islice(wanted.items(), share.places))
            asked_at, made = await self._claim(first, share.body_bytes, suspects=suspects)
            claimed = [one for one in made.values() if isinstance(one, Claimed)]
        finally:
            self._places.settle(share, [one.body_bytes for one in claimed])
        self._processor.begin(claimed, asked_at)
        if paused := _of(made, first, Refusal.PAUSED):
            # Nobody sends them again until processing is resumed.
            await self._give_back(list(paused))
        for email_id, one in made.items():
            if one is Refusal.SUSPECT:
                self._start(f"suspect-{email_id}", self._take_suspect(email_id, wanted[email_id]))
            elif one is Refusal.NO_WORK:
                log.debug("message_without_work", email_id=str(email_id))
        return made

    async def _claim(
        self, wanted: Wanted, most_bytes: int, *, suspects: bool
    ) -> "tuple[float, Made]":
        """Returns when the database was asked, and what it answered."""

        async def claim() -> tuple[float, Made]:
            asked_at = lease_time()
            made = await claiming.claim(
                self._pool,
                wanted,
                lease=self._lease,
                worker=self._worker,
                suspects=suspects,
                takes_over=self._held_claims.contact.has_lasted(self._lease),
                most_bytes=most_bytes,
                with_late=self._late.are_wanted,
            )
            return asked_at, dict(zip(wanted, made, strict=True))

        return await self._patiently("claim", claim)

    async def _take_when_free(self, busy: Wanted) -> None:
        """Try those again that somebody has locked, until their messages may count as lost."""
        until = time.monotonic() + self._settings.message_lost_seconds / 2
        pause = GrowingPause(FIRST_BUSY_PAUSE_SECONDS, LONGEST_BUSY_PAUSE_SECONDS)
        while busy and time.monotonic() < until:
            await asyncio.sleep(pause.next_seconds())
            made = await self._begin(busy, until=until)
            if made is None:
                break
            again = (Refusal.BUSY, Refusal.NO_ROOM)
            busy = {**_of(made, busy, *again), **_without(busy, made)}

    async def _take_suspect(self, email_id: UUID, token: UUID) -> None:
        """Process an email whose worker vanished, which may be its doing.

        It is the only such email of this process meanwhile, so that when it brings its worker
        down again, no email is taken along a second time and failed in its stead. Of those that
        wait for that, a worker takes one after the other until the pause is over.
        """
        until = time.monotonic() + SUSPECT_PAUSE.total_seconds()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SUSPECT_PAUSE.total_seconds()):
                await self._suspect.acquire()
            try:
                if await self._process_suspect({email_id: token}, until=until):
                    return
            finally:
                self._suspect.release()
        await self._patiently(
            "postpone",
            lambda: claiming.postpone_suspect(self._pool, email_id, delay=SUSPECT_PAUSE),
        )

    async def _process_suspect(self, wanted: Wanted, *, until: float) -> bool:
        """Returns whether there was a place for it."""
        made = await self._begin(wanted, until=until, suspects=True)
        await self._processor.wait_for(wanted)
        return made is not None

    async def _give_back(self, email_ids: Sequence[UUID]) -> None:
        log.debug("given_back", emails=len(email_ids))
        await self._patiently("give_back", lambda: claiming.give_back(self._pool, email_ids))

    async def _patiently(self, doing: str, work: Callable[[], Awaitable[T]]) -> T:
        return await patiently(doing, work, longest_pause=self._longest_pause)

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The lease of its email runs out, and then it is brought back.
            log.error("claiming_failed", task=task.get_name(), exc_info=error)


Made: TypeAlias = dict[UUID, Claimed | Refusal]


def _of(made: Made, wanted: Wanted, *refusals: Refusal) -> dict[UUID, UUID]:
    """Those that were refused so, with their tokens."""
    return {email_id: wanted[email_id] for email_id, one in made.items() if one in refusals}


def _without(wanted: Wanted, made: Made) -> dict[UUID, UUID]:
    """Those that were not asked for yet."""
    return {email_id: token for email_id, token in wanted.items() if email_id not in made}
