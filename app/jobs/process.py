"""One email that was claimed, to the state it ends in: run the handler, record its result."""

import asyncio
import time
from datetime import timedelta

import asyncpg
import structlog
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from app.handlers.context import Context
from app.handlers.loading import Handler
from app.handlers.running import run
from app.handlers.seam import Email
from app.handlers.surroundings import Surroundings
from app.jobs.leases import LEASE_NOT_EXTENDED, Held, HeldClaims, is_ending
from app.jobs.outcome import Outcome, outcome_of, result_of, tell
from app.jobs.places import Places
from app.jobs.progress import Notes, Progress
from app.jobs.results import Results
from app.jobs.transitions.claiming import Claimed
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import STOPPED, Completion, HandBack, Result
from app.models.fit import read_json
from app.models.incoming_email import IncomingEmail
from app.settings import Settings
from app.telemetry.metrics import HANDLER_SECONDS, FailureKind
from app.telemetry.tracing import span

log = structlog.get_logger(__name__)

# What a cancelled handler gets for its clean-up.
CANCEL_SECONDS = 5.0

JSON_COLUMNS = ("extracted_data", "attachment_urls", "raw_payload", "attempt_errors")
COLUMNS = [column._meta.name for column in IncomingEmail._meta.columns]
BLANK = Email()


class Processor:
    """Processes emails that were claimed, in the event loop that the handler runs in.

    Args:
        places: those that were taken for the emails.
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
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._held_claims = held_claims
        self._places = places
        self._results = results
        self._notes = notes
        self._surroundings = surroundings
        self._lease = timedelta(seconds=settings.lease_seconds)

    def begin(self, claimed: Claimed, asked_at: float) -> "asyncio.Task[None]":
        """Hold the claim from now on, run the handler, and record how it ended.

        Args:
            asked_at: when the claim was asked for, by the monotonic clock.
        """
        timeout = self._settings.handler_timeout_seconds
        held = Held(
            claimed.claim,
            # In place of its handler until that begins.
            asyncio.get_running_loop().create_future(),
            gives_up_at=time.monotonic() + timeout + 2 * CANCEL_SECONDS,
            lease_ends_at=asked_at + self._lease.total_seconds(),
        )
        self._held_claims.add(held)
        name = f"process-{claimed.claim.email_id}"
        return asyncio.create_task(self._process(claimed, held), name=name)

    async def _process(self, claimed: Claimed, held: Held) -> None:
        email_id = claimed.claim.email_id
        try:
            # The lines of the handler carry the id, too.
            with (
                structlog.contextvars.bound_contextvars(email_id=str(email_id)),
                span("process email", email_id, SpanKind.CONSUMER),
            ):
                progress = Progress(self._notes, claimed.claim)
                try:
                    result = await self._attempt(claimed, held, progress)
                finally:
                    self._places.handled()
                await progress.settle()
                tell(result, claim_stood=await self._results.record(result))
        finally:
            # Until then the lease goes on: the result is still to be recorded.
            self._held_claims.remove(held)
            self._places.recorded(claimed.body_bytes)

    async def _attempt(self, claimed: Claimed, held: Held, progress: Progress) -> Result:
        claim = claimed.claim
        if held.given_up_at is not None:
            return HandBack(claim, held.reason or STOPPED)
        if is_ending(held.lease_ends_at, self._lease):
            # The answer came late.
            return HandBack(claim, LEASE_NOT_EXTENDED)
        if claim.lost_claims < self._settings.max_lost_claims:
            return await self._handle(claimed, held, progress)
        outcome = Outcome(
            error=f"its worker vanished while processing it (times: {claim.lost_claims})",
            kind=FailureKind.VANISHED,
        )
        return result_of(self._settings, claim, outcome)

    async def _handle(self, claimed: Claimed, held: Held, progress: Progress) -> Result:
        claim, email = claimed.claim, _to_email(claimed.columns)
        task = asyncio.create_task(
            self._run(claim, email, progress), name=f"handle-{claim.email_id}"
        )
        held.task = task
        with HANDLER_SECONDS.time():
            outcome = await self._wait_for(task)
        if task.cancelled() and held.given_up_at is not None:
            return HandBack(claim, held.reason or STOPPED)
        if outcome.error is None:
            return Completion(claim, outcome.extracted_data, email.cleaned_body)
        get_current_span().set_status(StatusCode.ERROR)
        return result_of(self._settings, claim, outcome)

    async def _run(self, claim: Claim, email: Email, progress: Progress) -> str | None:
        context = Context(
            email_id=claim.email_id,
            attempt=claim.retry_count + 1,
            seconds=self._settings.handler_timeout_seconds,
            tell=progress.tell,
            client=self._surroundings.client,
        )
        email.attachments = self._surroundings.attachments(claim.email_id)
        return await run(self._handler, email, context)

    async def _wait_for(self, task: "asyncio.Task[str | None]") -> Outcome:
        timeout = self._settings.handler_timeout_seconds
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            return outcome_of(task)
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_SECONDS)
        if not task.done():
            log.error("handler_ignores_cancellation")
            # The email may not be tried again while it runs. The keeper ends this process soon.
            await asyncio.wait({task})
        return Outcome(
            error=f"the handler did not finish within {timeout:g} seconds",
            kind=FailureKind.TIMEOUT,
        )


def _to_email(row: "asyncpg.Record") -> Email:
    # Piccolo's constructor looks at each column anew, which took longer than all else that an email
    # costs its worker. Columns of a newer version are there as soon as its migrations have run.
    email = Email.__new__(Email)
    email.__dict__.update(BLANK.__dict__)
    email.__dict__.update({name: row[name] for name in COLUMNS})
    for name in JSON_COLUMNS:
        email.__dict__[name] = read_json(row[name])
    return email
