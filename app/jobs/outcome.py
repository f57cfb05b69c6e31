"""How one run of a handler ended, and what becomes of its email: one more attempt, or the end."""

import asyncio
import random
from datetime import timedelta

import attrs
import structlog

from app.handlers.seam import PermanentFailure, Retry
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import Completion, Failure, HandBack, LaterRetry, Result
from app.models.fit import fit_text
from app.settings import Settings
from app.telemetry.metrics import FailureKind

log = structlog.get_logger(__name__)

LONGEST_ERROR = 2_000
# What a handler asks for beyond it is more than the database can reckon with.
LONGEST_PAUSE = timedelta(days=365)


@attrs.frozen
class Outcome:
    """How one run of the handler ended."""

    extracted_data: str | None = None
    error: str | None = None
    kind: FailureKind = FailureKind.ERROR
    retry_after: timedelta | None = None


def result_of(settings: Settings, claim: Claim, outcome: Outcome) -> LaterRetry | Failure:
    """What becomes of an email whose attempt failed: one more attempt, or the end where there is
    none."""
    error = fit_text(outcome.error or "") or "unknown"
    is_final = (
        outcome.kind in (FailureKind.PERMANENT, FailureKind.VANISHED)
        or claim.retry_count >= settings.max_retries
    )
    if is_final:
        return Failure(claim, error=error, kind=outcome.kind)
    delay = outcome.retry_after
    if delay is None:
        delay = backoff(settings, claim.retry_count)
    delay = min(max(delay, timedelta(0)), LONGEST_PAUSE)
    return LaterRetry(claim, error=error, delay=delay, kind=outcome.kind)


def tell(result: Result, *, claim_stood: bool) -> None:
    """Log how a claim ended."""
    match result:
        case Failure():
            log.warning("email_failed", claim_stood=claim_stood)
        case LaterRetry():
            log.info(
                "attempt_failed",
                retry=result.claim.retry_count + 1,
                delay_seconds=round(result.delay.total_seconds(), 1),
                claim_stood=claim_stood,
            )
        case Completion():
            if not claim_stood:
                log.warning("claim_lost", outcome="completed")
            log.debug("completed", claim_stood=claim_stood)
        case HandBack() if not claim_stood:
            log.warning("claim_lost", outcome="handed back")


def backoff(settings: Settings, retry_count: int) -> timedelta:
    """The pause before the next retry: doubled each time, bounded, and up to a quarter longer or
    shorter, so that emails which failed together do not come back together."""
    pause = settings.min_backoff_seconds * 2.0 ** min(retry_count, 60)
    pause = min(pause, settings.max_backoff_seconds) * random.uniform(0.75, 1.25)  # noqa: S311
    return timedelta(seconds=min(pause, settings.max_backoff_seconds))


def outcome_of(task: "asyncio.Task[str | None]") -> Outcome:
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
