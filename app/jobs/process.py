"""One email, from the message that asks for it to the state it ends in: claim, run, record."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import attrs
import structlog
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from app.handlers.seam import Handler, PermanentFailure, run
from app.jobs.heartbeat import worker_name
from app.jobs.leases import (
    LEASE_NOT_EXTENDED,
    LONGEST_PAUSE_OF_LEASE,
    Held,
    HeldClaims,
    is_ending,
)
from app.jobs.outcome import Outcome, outcome_of, result_of, tell
from app.jobs.patience import LONGEST_PAUSE_SECONDS, patiently
from app.jobs.results import Results
from app.jobs.transitions import claiming
from app.jobs.transitions.claiming import Refusal
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import STOPPED, Completion, HandBack, Result
from app.metrics import HANDLER_SECONDS, FailureKind
from app.models.fit import fit_optional_text, read_json
from app.models.incoming_email import IncomingEmail
from app.settings import Settings
from app.tracing import span

T = TypeVar("T")

log = structlog.get_logger(__name__)

# What a cancelled handler gets for its clean-up.
CANCEL_SECONDS = 5.0
# How soon a suspect is sent again to see whether it is its turn.
SUSPECT_PAUSE = timedelta(seconds=5)

JSON_COLUMNS = ("extracted_data", "attachment_urls", "raw_payload", "attempt_errors")


@attrs.frozen
class _Claimed:
    """A claim that was just made."""

    claim: Claim
    columns: dict[str, Any]
    lease_ends_at: float


class Processor:
    """Processes emails with a handler, over the pool of the event loop it is made and runs in."""

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        pool: "asyncpg.Pool[asyncpg.Record]",
        held_claims: HeldClaims,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._pool = pool
        self._held_claims = held_claims
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._worker = worker_name()
        self._suspect = asyncio.Lock()
        self._results = Results(pool, longest_pause=self._longest_pause)

    async def process(self, email_id: UUID) -> None:
        """Claim an email, run the handler, record how it ended.

        A message for an email that is finished, held by another worker or not yet due does
        nothing: it came twice or late.
        """
        # The lines of the handler carry the id, too.
        with (
            structlog.contextvars.bound_contextvars(email_id=str(email_id)),
            span("process email", email_id, SpanKind.CONSUMER),
        ):
            await self._process(email_id)

    async def _process(self, email_id: UUID) -> None:
        # By it a claim that is asked for again, as the connection broke, is known as the same.
        token = uuid4()
        claimed = await self._claim(email_id, token, suspects=False)
        if isinstance(claimed, _Claimed):
            await self._attempt(claimed)
        elif claimed is Refusal.NO_WORK:
            log.debug("message_without_work")
        elif self._suspect.locked():
            await self._patiently(
                "postpone",
                lambda: claiming.postpone_suspect(self._pool, email_id, delay=SUSPECT_PAUSE),
            )
        else:
            await self._process_suspect(email_id, token)

    async def _process_suspect(self, email_id: UUID, token: UUID) -> None:
        """Process an email whose worker vanished, which may be its doing.

        It is the only such email of this process meanwhile, so that when it brings its worker
        down again, no email is taken along a second time and failed in its stead.
        """
        async with self._suspect:
            claimed = await self._claim(email_id, token, suspects=True)
            if isinstance(claimed, _Claimed):
                await self._attempt(claimed)

    async def _claim(self, email_id: UUID, token: UUID, *, suspects: bool) -> "_Claimed | Refusal":
        async def claim() -> _Claimed | Refusal:
            asked_at = time.monotonic()
            made = await claiming.claim(
                self._pool,
                email_id,
                lease=self._lease,
                worker=self._worker,
                token=token,
                suspects=suspects,
                takes_over=self._held_claims.contact.has_lasted(self._lease),
            )
            if isinstance(made, Refusal):
                return made
            return _Claimed(*made, asked_at + self._lease.total_seconds())

        return await self._patiently("claim", claim)

    @property
    def _longest_pause(self) -> float:
        # Whoever lives is to be back before others may take over what it holds.
        return min(LONGEST_PAUSE_SECONDS, self._lease.total_seconds() * LONGEST_PAUSE_OF_LEASE)

    async def _patiently(self, doing: str, work: Callable[[], Awaitable[T]]) -> T:
        return await patiently(doing, work, longest_pause=self._longest_pause)

    async def _attempt(self, claimed: "_Claimed") -> None:
        claim = claimed.claim
        if is_ending(claimed.lease_ends_at, self._lease):
            # The answer came late.
            await self._record(HandBack(claim, LEASE_NOT_EXTENDED))
            return
        if claim.lost_claims < self._settings.max_lost_claims:
            await self._handle(claimed)
            return
        outcome = Outcome(
            error=f"its worker vanished while processing it (times: {claim.lost_claims})",
            kind=FailureKind.VANISHED,
        )
        await self._record(result_of(self._settings, claim, outcome))

    async def _handle(self, claimed: "_Claimed") -> None:
        claim, email = claimed.claim, _to_email(claimed.columns)
        timeout = self._settings.handler_timeout_seconds
        task = asyncio.create_task(_call(self._handler, email), name=f"handle-{claim.email_id}")
        held = Held(
            claim,
            task,
            gives_up_at=time.monotonic() + timeout + 2 * CANCEL_SECONDS,
            lease_ends_at=claimed.lease_ends_at,
        )
        self._held_claims.add(held)
        try:
            with HANDLER_SECONDS.time():
                outcome = await self._wait_for(task, claim)
            if task.cancelled() and held.given_up_at is not None:
                await self._record(HandBack(claim, held.reason or STOPPED))
            elif outcome.error is None:
                body = fit_optional_text(email.cleaned_body)
                await self._record(Completion(claim, outcome.extracted_data, body))
            else:
                get_current_span().set_status(StatusCode.ERROR)
                await self._record(result_of(self._settings, claim, outcome))
        finally:
            # Until then the lease goes on: the result is still to be recorded.
            self._held_claims.remove(held)

    async def _wait_for(self, task: "asyncio.Task[str | None]", claim: Claim) -> Outcome:
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

    async def _record(self, result: Result) -> None:
        tell(result, claim_stood=await self._results.record(result))


async def _call(handler: Handler, email: IncomingEmail) -> str | None:
    try:
        result = await run(handler, email)
    except (SystemExit, KeyboardInterrupt) as error:
        # They would end the event loop, and every other handler with it.
        raise RuntimeError(f"the handler raised {error!r}") from error
    try:
        email.cleaned_body = fit_optional_text(email.cleaned_body)
    except TypeError as error:
        raise PermanentFailure(f"the handler set email.cleaned_body: it {error}") from error
    return result


def _to_email(columns: dict[str, Any]) -> IncomingEmail:
    for name in JSON_COLUMNS:
        columns[name] = read_json(columns[name])
    # Columns of a newer version are there as soon as its migrations have run.
    known = {column._meta.name for column in IncomingEmail._meta.columns}
    return IncomingEmail(**{name: value for name, value in columns.items() if name in known})
