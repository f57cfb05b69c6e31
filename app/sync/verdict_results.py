"""What a receiver's verdict means for one email: delivered, later or given up."""

import random
from collections.abc import Sequence
from datetime import timedelta

import structlog

from app.setting_groups.group import LONGEST_SECONDS
from app.sync.answers import Health, Verdict
from app.sync.claims import Claimed, Source
from app.sync.schedule import LONGEST_REST_SECONDS, pause_before
from app.sync.transitions import End, Outcome, Result
from app.telemetry.metrics import DELIVERIES, DeliveryResult

log = structlog.get_logger(__name__)

# What a receiver that gets too much leaves open.
BUSY_SECONDS = 5.0
LONGEST_REST = timedelta(seconds=LONGEST_REST_SECONDS)
LONGEST_PAUSE = timedelta(seconds=LONGEST_SECONDS)


def result_of(
    claimed: Claimed,
    verdict: Verdict,
    *,
    is_alone: bool,
    pauses: Sequence[float],
    is_probe: bool,
) -> Result:
    """What becomes of an email, or an event, of which a receiver said this.

    Args:
        is_alone: nothing else was sent with it.
        pauses: before each try, in seconds.
        is_probe: whether it was one.
    """
    if verdict.is_delivered:
        return Result(claimed, Outcome.SYNCED, told=verdict.told)
    # What it said of several may quote another email, and what it says of an erased one that email:
    # no erasure would find it there.
    may_quote = is_alone and claimed.source is Source.EMAILS
    error, asked = verdict.error if may_quote else verdict.reason, verdict.retry_after
    rest = timedelta(0) if asked is None else min(asked, LONGEST_REST)
    if is_probe and verdict.health is Health.DOWN:
        # It stays due, and is delivered with all others as soon as the receiver is back.
        return Result(claimed, Outcome.LATER, error=error, told=uncounted(verdict.told))
    if not verdict.counts:
        later = None
        if verdict.slows_down:
            later = max(rest, timedelta(seconds=BUSY_SECONDS * random.uniform(0.5, 1.5)))  # noqa: S311
        told = uncounted(verdict.told)
        return Result(claimed, Outcome.LATER, error=error, delay=later, told=told)
    # Where the list has one try alone, nobody would know which of several was refused.
    further = pauses if is_alone else (*pauses, pauses[-1])
    pause, wanted = pause_before(further, claimed.failed_tries + 1), verdict.pause
    if pause is None or (verdict.is_final and is_alone):
        told = f"delivery failed for good: {verdict.told}"
        return Result(claimed, Outcome.FAILED, error=error, counts=True, told=told)
    return Result(
        claimed,
        Outcome.LATER,
        error=error,
        delay=max(pause, rest) if wanted is None else min(max(wanted, timedelta(0)), LONGEST_PAUSE),
        counts=True,
        told=f"delivery failed: {verdict.told}",
    )


def uncounted(told: str | None) -> str | None:
    """What an email's story says of a try that failed and is none of those it has. None: nothing,
    as nothing was sent."""
    return told and f"delivery failed, which uses up no try: {told}"


def tell(result: Result, end: End) -> None:
    """Log and count how a try ended."""
    email_id = str(result.claimed.email_id)
    if end is End.LOST:
        log.warning("delivery_claim_lost", email_id=email_id, outcome=result.outcome.value)
    elif result.outcome is Outcome.SYNCED:
        DELIVERIES.labels(DeliveryResult.DELIVERED).inc()
        log.debug("delivered", email_id=email_id)
    elif result.outcome is Outcome.FAILED:
        DELIVERIES.labels(DeliveryResult.FAILED).inc()
        log.warning("delivery_failed_for_good", email_id=email_id)
    elif result.error is not None:
        DELIVERIES.labels(DeliveryResult.RETRIED).inc()
        log.info("delivery_failed", email_id=email_id, counts=result.counts)
