"""How one run of a handler ended, and what becomes of its email: one more attempt, or the end."""

import asyncio
import random
from collections.abc import Awaitable
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
CANCELLED = "the handler was cancelled"
# What a handler asks for beyond it is more than the database can reckon with.
LONGEST_PAUSE = timedelta(days=365)


@attrs.frozen
class Outcome:
    """How one run of the handler ended."""

    extracted_data: str | None = None
    error: str | None = None
    kind: FailureKind = FailureKind.ERROR
    retry_after: timedelta | None = None
    was_cancelled: bool = False


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
    email_id = str(result.claim.email_id)
    match result:
        case Failure():
            log.warning("email_failed", email_id=email_id, claim_stood=claim_stood)
        case LaterRetry():
            log.info(
                "attempt_failed",
                email_id=email_id,
                retry=result.claim.retry_count + 1,
                delay_seconds=round(result.delay.total_seconds(), 1),
                claim_stood=claim_stood,
            )
        case Completion():
            if not claim_stood:
                log.warning("claim_lost", email_id=email_id, outcome="completed")
            log.debug("completed", email_id=email_id, claim_stood=claim_stood)
        case HandBack() if not claim_stood:
            log.warning("claim_lost", email_id=email_id, outcome="handed back")


def backoff(settings: Settings, retry_count: int) -> timedelta:
    """The pause before the next retry: doubled each time, bounded, and up to a quarter longer or
    shorter, so that emails which failed together do not come back together."""
    pause = settings.min_backoff_seconds * 2.0 ** min(retry_count, 60)
    pause = min(pause, settings.max_backoff_seconds) * random.uniform(0.75, 1.25)  # noqa: S311
    return timedelta(seconds=min(pause, settings.max_backoff_seconds))


async def outcome_of(handling: Awaitable[str | None]) -> Outcome:
    """Wait for a run of the handler. It raises nothing, whatever that does."""
    try:
        return Outcome(extracted_data=await handling)
    except asyncio.CancelledError:
        return Outcome(error=CANCELLED, was_cancelled=True)
    except PermanentFailure as error:
        return Outcome(error=_describe(error), kind=FailureKind.PERMANENT)
    except Retry as error:
        return Outcome(error=_describe(error), kind=FailureKind.REQUESTED, retry_after=error.after)
    except BaseException as error:  # noqa: BLE001 - its own kinds of exceptions, too
        return Outcome(error=_describe(error))


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever its own code does
        text = "it cannot be shown"
    if not isinstance(error, PermanentFailure | Retry):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:LONGEST_ERROR]
