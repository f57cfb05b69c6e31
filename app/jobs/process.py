"""One email, from the message that asks for it to the state it ends in: claim, run, record."""

import asyncio
import random
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import attrs
import structlog
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from app.handlers.seam import Handler, PermanentFailure, Retry, result_to_json
from app.jobs import transitions
from app.jobs.heartbeat import worker_name
from app.jobs.leases import Held, HeldClaims
from app.jobs.patience import patiently
from app.jobs.transitions import Claim
from app.metrics import HANDLER_SECONDS, FailureKind
from app.models.fit import fit_optional_text, fit_text, read_json
from app.models.incoming_email import IncomingEmail
from app.settings import Settings
from app.tracing import span

log = structlog.get_logger(__name__)

# What a cancelled handler gets for its clean-up.
CANCEL_SECONDS = 5.0
LONGEST_ERROR = 2_000
# What a handler asks for beyond it is more than the database can reckon with.
LONGEST_PAUSE = timedelta(days=365)
# How soon a suspect is sent again to see whether it is its turn.
SUSPECT_PAUSE = timedelta(seconds=5)

JSON_COLUMNS = ("extracted_data", "attachment_urls", "raw_payload", "attempt_errors")


@attrs.frozen
class Outcome:
    """How one run of the handler ended."""

    extracted_data: str | None = None
    error: str | None = None
    kind: FailureKind = FailureKind.ERROR
    retry_after: timedelta | None = None


class Processor:
    """Processes emails with a handler, over the pool of the event loop it runs in."""

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
        self._worker = worker_name()
        self._suspect = asyncio.Lock()

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
        claimed = await self._claim(email_id, suspects=False)
        if claimed is not None:
            await self._attempt(*claimed)
        elif self._suspect.locked():
            await patiently(
                "postpone",
                lambda: transitions.postpone_suspect(self._pool, email_id, delay=SUSPECT_PAUSE),
            )
        else:
            await self._process_suspect(email_id)

    async def _process_suspect(self, email_id: UUID) -> None:
        """Process an email if its worker vanished, which may be its doing.

        It is the only such email of this process meanwhile, so that when it brings its worker
        down again, no email is taken along a second time and failed in its stead.
        """
        async with self._suspect:
            claimed = await self._claim(email_id, suspects=True)
            if claimed is not None:
                await self._attempt(*claimed)
            else:
                log.debug("message_without_work")

    async def _claim(
        self, email_id: UUID, *, suspects: bool
    ) -> tuple[Claim, dict[str, Any]] | None:
        lease = timedelta(seconds=self._settings.lease_seconds)
        return await patiently(
            "claim",
            lambda: transitions.claim(
                self._pool, email_id, lease=lease, worker=self._worker, suspects=suspects
            ),
        )

    async def _attempt(self, claim: Claim, columns: dict[str, Any]) -> None:
        if claim.lost_claims >= self._settings.max_lost_claims:
            outcome = Outcome(
                error=f"its worker vanished while processing it (times: {claim.lost_claims})",
                kind=FailureKind.VANISHED,
            )
        else:
            email = _to_email(columns)
            await self._handle(claim, email)
            return
        await self._record_failure(claim, outcome)

    async def _handle(self, claim: Claim, email: IncomingEmail) -> None:
        timeout = self._settings.handler_timeout_seconds
        task = asyncio.create_task(_call(self._handler, email), name=f"handle-{claim.email_id}")
        held = Held(claim, task, gives_up_at=time.monotonic() + timeout + 2 * CANCEL_SECONDS)
        self._held_claims.add(held)
        try:
            with HANDLER_SECONDS.time():
                outcome = await self._wait_for(task, claim)
            if task.cancelled() and self._held_claims.is_given_up(held):
                await patiently("hand_back", lambda: transitions.hand_back(self._pool, claim))
            elif outcome.error is None:
                await self._record_completion(claim, email, outcome)
            else:
                get_current_span().set_status(StatusCode.ERROR)
                await self._record_failure(claim, outcome)
        finally:
            # Until then the lease goes on: the result is still to be recorded.
            self._held_claims.remove(held)

    async def _wait_for(self, task: "asyncio.Task[str | None]", claim: Claim) -> Outcome:
        timeout = self._settings.handler_timeout_seconds
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            return _outcome_of(task)
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_SECONDS)
        if not task.done():
            log.error("handler_ignores_cancellation")
        return Outcome(
            error=f"the handler did not finish within {timeout:g} seconds",
            kind=FailureKind.TIMEOUT,
        )

    async def _record_completion(
        self, claim: Claim, email: IncomingEmail, outcome: Outcome
    ) -> None:
        stood = await patiently(
            "complete",
            lambda: transitions.complete(
                self._pool,
                claim,
                extracted_data=outcome.extracted_data,
                cleaned_body=fit_optional_text(email.cleaned_body),
            ),
        )
        if not stood:
            log.warning("claim_lost", outcome="completed")
        log.debug("completed", claim_stood=stood)

    async def _record_failure(self, claim: Claim, outcome: Outcome) -> None:
        error = fit_text(outcome.error or "") or "unknown"
        is_final = (
            outcome.kind in (FailureKind.PERMANENT, FailureKind.VANISHED)
            or claim.retry_count >= self._settings.max_retries
        )
        if is_final:
            stood = await patiently(
                "fail",
                lambda: transitions.fail(self._pool, claim, error=error, kind=outcome.kind),
            )
            log.warning("email_failed", claim_stood=stood)
            return
        delay = outcome.retry_after
        if delay is None:
            delay = backoff(self._settings, claim.retry_count)
        delay = min(max(delay, timedelta(0)), LONGEST_PAUSE)
        stood = await patiently(
            "retry",
            lambda: transitions.retry_later(
                self._pool, claim, error=error, delay=delay, kind=outcome.kind
            ),
        )
        log.info(
            "attempt_failed",
            retry=claim.retry_count + 1,
            delay_seconds=round(delay.total_seconds(), 1),
            claim_stood=stood,
        )


def backoff(settings: Settings, retry_count: int) -> timedelta:
    """The pause before the next retry: doubled each time, bounded, and up to a quarter longer or
    shorter, so that emails which failed together do not come back together."""
    pause = settings.min_backoff_seconds * 2.0 ** min(retry_count, 60)
    pause = min(pause, settings.max_backoff_seconds) * random.uniform(0.75, 1.25)  # noqa: S311
    return timedelta(seconds=min(pause, settings.max_backoff_seconds))


async def _call(handler: Handler, email: IncomingEmail) -> str | None:
    try:
        result = result_to_json(await handler(email))
    except (SystemExit, KeyboardInterrupt) as error:
        # They would end the event loop, and every other handler with it.
        raise RuntimeError(f"the handler raised {error!r}") from error
    try:
        email.cleaned_body = fit_optional_text(email.cleaned_body)
    except TypeError as error:
        raise PermanentFailure(f"the handler set email.cleaned_body: it {error}") from error
    return result


def _outcome_of(task: "asyncio.Task[str | None]") -> Outcome:
    if task.cancelled():
        return Outcome(error="the handler was cancelled")
    error = task.exception()
    match error:
        case None:
            return Outcome(extracted_data=task.result())
        case PermanentFailure():
            return Outcome(error=_describe(error), kind=FailureKind.PERMANENT)
        case Retry():
            return Outcome(
                error=_describe(error), kind=FailureKind.REQUESTED, retry_after=error.after
            )
        case _:
            return Outcome(error=_describe(error))


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever its own code does
        text = "it cannot be shown"
    if not isinstance(error, PermanentFailure | Retry):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:LONGEST_ERROR]


def _to_email(columns: dict[str, Any]) -> IncomingEmail:
    for name in JSON_COLUMNS:
        columns[name] = read_json(columns[name])
    # Columns of a newer version are there as soon as its migrations have run.
    known = {column._meta.name for column in IncomingEmail._meta.columns}
    return IncomingEmail(**{name: value for name, value in columns.items() if name in known})
