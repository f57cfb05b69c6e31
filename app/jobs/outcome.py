"""How one run of a handler ended, and what becomes of its email: one more attempt, or the end."""

import asyncio
import random
from datetime import timedelta

import attrs
import structlog

from app.handlers.seam import PermanentFailure, Retry
from app.jobs.transitions import ending
from app.jobs.transitions.common import Claim, Database
from app.metrics import FailureKind
from app.models.fit import fit_text
from app.settings import Settings

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


async def record_failure(
    database: Database, settings: Settings, claim: Claim, outcome: Outcome
) -> None:
    """processing -> queued for one more attempt, or -> failed where there is none.

    Raises:
        Exception: the database is away; it may be called again.
    """
    error = fit_text(outcome.error or "") or "unknown"
    is_final = (
        outcome.kind in (FailureKind.PERMANENT, FailureKind.VANISHED)
        or claim.retry_count >= settings.max_retries
    )
    if is_final:
        stood = await ending.fail(database, claim, error=error, kind=outcome.kind)
        log.warning("email_failed", claim_stood=stood)
        return
    delay = outcome.retry_after
    if delay is None:
        delay = backoff(settings, claim.retry_count)
    delay = min(max(delay, timedelta(0)), LONGEST_PAUSE)
    stood = await ending.retry_later(database, claim, error=error, delay=delay, kind=outcome.kind)
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
