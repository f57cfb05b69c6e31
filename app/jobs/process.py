"""Emails that were claimed, to the states they end in: run the handler, record its result.

Each has one task, in which its handler runs, and nothing else of its own: what comes before and
after that is done for many at once, since it would cost more than a handler that does little.
"""

import asyncio
import math
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import attrs
import structlog
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from app.handlers.context import Context
from app.handlers.loading import Handler
from app.handlers.running import run
from app.handlers.seam import Email
from app.handlers.surroundings import Surroundings
from app.jobs.claimed_email import LateColumns, to_email
from app.jobs.leases import LEASE_NOT_EXTENDED, Held, HeldClaims, is_ending
from app.jobs.outcome import CANCELLED, Outcome, outcome_of, result_of, tell
from app.jobs.places import Places
from app.jobs.progress import Notes, Progress
from app.jobs.results import FIRST_BUSY_PAUSE_SECONDS, LONGEST_BUSY_PAUSE_SECONDS, Results
from app.jobs.time_limit import TimeLimit
from app.jobs.transitions.claiming import FIRST_COLUMN, Claimed
from app.jobs.transitions.ending import STOPPED, Completion, End, HandBack, Result
from app.pauses import GrowingPause
from app.settings import Settings
from app.telemetry.metrics import HANDLER_SECONDS, FailureKind
from app.telemetry.tracing import span

log = structlog.get_logger(__name__)

# What a cancelled handler gets for its clean-up.
CANCEL_SECONDS = 5.0
# How long an email that was claimed ahead waits for its place here, before others may have it.
LINE_SECONDS = 2.0
NO_PLACE = "handed back untried: its worker had no place for it"


class Processor:
    """Processes emails that were claimed, in the event loop that the handler runs in.

    Args:
        places: those that were taken for the emails.
        late: whether handlers look at what is not always fetched.
    """

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        *,
        held_claims: HeldClaims,
        places: Places,
        results: Results,
        notes: Notes,
        surroundings: Surroundings,
        late: LateColumns,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._held_claims = held_claims
        self._places = places
        self._results = results
        self._notes = notes
        self._surroundings = surroundings
        self._late = late
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._timeout = settings.handler_timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._in_hand: set[_InHand] = set()
        self._running = TimeLimit[_InHand](self._timeout, self._cancel)
        self._line = TimeLimit[_InHand](LINE_SECONDS, self._let_others_have)
        self._settling: set[asyncio.Task[None]] = set()

    def begin(self, claimed: Sequence[Claimed], asked_at: float) -> None:
        """Hold the claims from now on, run the handler for each, and record how they ended.

        Args:
            asked_at: when they were asked for, by the clock of leases.
        """
        self._late.handled(len(claimed))
        lease_ends_at = asked_at + self._lease.total_seconds()
        for one in claimed:
            email = _InHand(self, one)
            place = self._loop.create_future()
            place.add_done_callback(email.handled)
            email.held = Held(one.claim, place, gives_up_at=math.inf, lease_ends_at=lease_ends_at)
            self._in_hand.add(email)
            self._held_claims.add(email.held)
            self._line.begin(email)
        self._start_next()

    def _start_next(self) -> None:
        """Have those handled that wait for places, as far as there are some."""
        while self._places.has_room and (email := self._line.end_first()) is not None:
            held = email.held
            if held.task.done():
                # It was given up just now, and its callback is on its way.
                continue
            self._places.occupy()
            email.has_place = True
            held.task.remove_done_callback(email.handled)
            held.gives_up_at = time.monotonic() + self._timeout + 2 * CANCEL_SECONDS
            # Whoever gives the claim up meanwhile has said so before it looked for the task.
            held.task = self._loop.create_task(self._attempt(email))
            held.task.add_done_callback(email.handled)

    def _let_others_have(self, email: "_InHand") -> None:
        """Handlers are not as quick as they were when it was claimed."""
        self._held_claims.give_up(email.held, NO_PLACE)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand."""
        return not self._in_hand

    async def wait_for(self, email_ids: Collection[UUID]) -> None:
        """Wait until nothing more is in hand of these emails."""
        await self._wait({one for one in self._in_hand if one.claimed.claim.email_id in email_ids})

    async def wait_for_all(self) -> None:
        """Wait until what is in hand now is recorded."""
        await self._wait(self._in_hand)

    async def _wait(self, emails: "Collection[_InHand]") -> None:
        if emails:
            await asyncio.wait([one.ended_soon() for one in [*emails]])

    async def _attempt(self, email: "_InHand") -> Result:
        claim, held = email.claimed.claim, email.held
        if held.given_up_at is not None:
            return HandBack(claim, held.reason or STOPPED)
        if is_ending(held.lease_ends_at, self._lease):
            # The answer came late.
            return HandBack(claim, LEASE_NOT_EXTENDED)
        if claim.lost_claims >= self._settings.max_lost_claims:
            outcome = Outcome(
                error=f"its worker vanished while processing it (times: {claim.lost_claims})",
                kind=FailureKind.VANISHED,
            )
            return result_of(self._settings, claim, outcome)
        return await self._handle(email)

    async def _handle(self, email: "_InHand") -> Result:
        claim, held = email.claimed.claim, email.held
        row = to_email(
            email.claimed.columns,
            first=FIRST_COLUMN,
            late=self._late,
            has_late=email.claimed.has_late,
        )
        # The lines of the handler carry the id, too. This task has a context of its own.
        structlog.contextvars.bind_contextvars(email_id=str(claim.email_id))
        email.began_at = time.monotonic()
        self._running.begin(email)
        with span("process email", claim.email_id, SpanKind.CONSUMER):
            outcome = await outcome_of(self._run(email, row))
            if email.is_over_time:
                outcome = Outcome(
                    error=f"the handler did not finish within {self._timeout:g} seconds",
                    kind=FailureKind.TIMEOUT,
                    was_cancelled=outcome.was_cancelled,
                )
            if outcome.error is not None:
                get_current_span().set_status(StatusCode.ERROR)
        HANDLER_SECONDS.observe(time.monotonic() - email.began_at)
        if outcome.was_cancelled and held.given_up_at is not None:
            return HandBack(claim, held.reason or STOPPED)
        if outcome.error is None:
            return Completion(claim, outcome.extracted_data, row.cleaned_body)
        return result_of(self._settings, claim, outcome)

    async def _run(self, email: "_InHand", row: Email) -> str | None:
        claim = email.claimed.claim
        context = Context(
            email_id=claim.email_id,
            attempt=claim.retry_count + 1,
            seconds=self._timeout,
            tell=email.tell,
            client=self._surroundings.client,
        )
        row.attachments = self._surroundings.attachments(claim.email_id)
        return await run(self._handler, row, context)

    def _cancel(self, email: "_InHand") -> None:
        """The time of its handler is over."""
        email.is_over_time = True
        email.held.task.cancel()
        self._loop.call_later(CANCEL_SECONDS, email.say_if_it_runs_on)

    def handled(self, email: "_InHand", task: "asyncio.Future[Any]") -> None:
        """The task of an email has ended."""
        self._places.handled(has_run=email.has_place)
        self._running.end(email)
        self._line.end(email)
        self._start_next()
        claim, held = email.claimed.claim, email.held
        if task.cancelled():
            if held.given_up_at is not None or not email.began_at:
                email.result = HandBack(claim, held.reason or STOPPED)
            else:
                # By itself, in its last step.
                email.result = result_of(self._settings, claim, Outcome(error=CANCELLED))
        elif (error := task.exception()) is not None:
            email.end(error)
            return
        else:
            email.result = task.result()
        if email.progress is None:
            self.record(email)
        else:
            self._settling.add(settling := self._loop.create_task(self._settle(email)))
            settling.add_done_callback(self._settling.discard)

    def progress_of(self, email: "_InHand") -> Progress:
        """What takes the texts of its handler."""
        return Progress(self._notes, email.claimed.claim)

    async def _settle(self, email: "_InHand") -> None:
        """Have what its handler told last written before its result, which ends the claim."""
        try:
            if email.progress is not None:
                await email.progress.settle()
        finally:
            self.record(email)

    def record(self, email: "_InHand") -> None:
        """Have its result recorded."""
        self._results.put(email.result, email)

    def let_go(self, email: "_InHand", error: BaseException | None = None) -> None:
        """Hold it no longer: until its result is recorded, its lease goes on."""
        if error is not None:
            # The lease runs out, and then it is brought back.
            email_id = str(email.claimed.claim.email_id)
            log.error("processing_failed", email_id=email_id, exc_info=error)
        self._held_claims.remove(email.held)
        self._places.recorded(email.claimed.body_bytes)
        self._in_hand.discard(email)


@attrs.define(eq=False)
class _InHand:
    """An email on its way through this process; told what became of its result."""

    _processor: Processor
    claimed: Claimed
    held: Held = attrs.field(init=False)
    began_at: float = 0.0
    """When its handler was called, by the monotonic clock."""
    has_place: bool = False
    is_over_time: bool = False
    progress: Progress | None = None
    result: Result = attrs.field(init=False)
    _pause: GrowingPause | None = None
    _ended: "asyncio.Future[None] | None" = None

    def handled(self, task: "asyncio.Future[Any]") -> None:
        self._processor.handled(self, task)

    def tell(self, text: str) -> None:
        """Its handler tells how far it is."""
        if self.progress is None and not self.held.task.done():
            self.progress = self._processor.progress_of(self)
        if self.progress is not None:
            self.progress.tell(text)

    def say_if_it_runs_on(self) -> None:
        """The email may not be tried again while it runs. The keeper ends this process soon."""
        if not self.held.task.done():
            log.error("handler_ignores_cancellation", email_id=str(self.claimed.claim.email_id))

    def ended_soon(self) -> "asyncio.Future[None]":
        """A future of its end."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        return self._ended

    def done(self) -> bool:
        """Whether nobody waits for the result to be recorded: somebody always does."""
        return False

    def set_result(self, end: End) -> None:
        """Its result was recorded, or came too late, or has to be recorded again."""
        if end is End.BUSY:
            self._pause = self._pause or GrowingPause(
                FIRST_BUSY_PAUSE_SECONDS, LONGEST_BUSY_PAUSE_SECONDS
            )
            loop = asyncio.get_running_loop()
            loop.call_later(self._pause.next_seconds(), self._processor.record, self)
            return
        tell(self.result, claim_stood=end is End.RECORDED)
        self.end()

    def set_exception(self, error: Exception) -> None:
        """It cannot be recorded."""
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more is to be done with it here."""
        self._processor.let_go(self, error)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
