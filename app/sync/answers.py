"""What an answer of the receiver means for the delivery, and for the receiver itself."""

from datetime import timedelta
from enum import Enum, auto

import attrs

from app.telemetry.metrics import DeliveryFailure

# Characters of what a receiver answers that are kept.
LONGEST_ANSWER = 500

_REDIRECTS = range(300, 400)
_DELIVERED = range(200, 300)
_GONE = 410
_TOO_MANY = 429
# 408 and 425 are asked again by HTTP itself.
_BUSY = frozenset({408, 425, _TOO_MANY})
_REFUSALS = range(400, 500)
# The spec has these slow down. https://github.com/standard-webhooks/standard-webhooks
_SLOWING = frozenset({_TOO_MANY, 502, 504})


class Health(Enum):
    """What a try tells of the receiver."""

    UP = auto()
    """It is there. That it refuses one email says nothing of others."""

    DOWN = auto()
    """It is not there, or cannot do its work."""

    GONE = auto()
    """It wants nothing more."""


@attrs.frozen
class Verdict:
    """What became of a try."""

    is_delivered: bool = False
    error: str | None = None
    """Why it failed, for operators; what the receiver said may quote the email."""
    reason: str | None = None
    """The same with nothing that it said: for what outlives the email, or is another's."""
    health: Health = Health.UP
    is_final: bool = False
    """No further try can help, if there was one event alone: of several nobody knows which."""
    counts: bool = True
    """It is one of the tries that an email has."""
    retry_after: timedelta | None = None
    """What the receiver asked for: no sooner."""
    pause: timedelta | None = None
    """Until the next try, whatever the schedule says."""
    slows_down: bool = False
    """It gets too much at once."""
    kind: DeliveryFailure | None = None
    """Why it failed, for the metrics."""
    told: str | None = "delivered"
    """The same for the email's history, without what the receiver said. None: nothing was sent."""


DELIVERED = Verdict(is_delivered=True)


def verdict_of(status: int, text: str, retry_after: timedelta | None) -> Verdict:
    """Judge an answer.

    Args:
        text: the beginning of its body.
        retry_after: as its header says.
    """
    if status in _DELIVERED:
        return DELIVERED
    said = text[:LONGEST_ANSWER].strip()
    told = f"the receiver answered {status}"
    hint = ""
    if status in _REDIRECTS:
        hint = " (a redirect, which is not followed: set MAILROOM_SYNC_URL to its target)"
    health = Health.UP if status in _REFUSALS or status in _REDIRECTS else Health.DOWN
    if status in _BUSY:
        health = Health.DOWN
    if status == _GONE:
        health = Health.GONE
    return Verdict(
        error=told + (f": {said}" if said else "") + hint,
        reason=told + hint,
        kind=_kind_of(status),
        health=health,
        # It says nothing of the email.
        counts=status not in (_TOO_MANY, _GONE),
        retry_after=retry_after,
        slows_down=status in _SLOWING,
        told=told,
    )


def _kind_of(status: int) -> DeliveryFailure:
    if status == _GONE:
        return DeliveryFailure.GONE
    if status in _BUSY or status in _SLOWING:
        return DeliveryFailure.BUSY
    if status in _REFUSALS:
        return DeliveryFailure.REFUSED
    return DeliveryFailure.REDIRECTED if status in _REDIRECTS else DeliveryFailure.BROKEN


def unreached(error: str, *, reason: str | None = None, slows_down: bool = False) -> Verdict:
    """There was no answer.

    Args:
        reason: the same without what may quote an email, where the error may.
    """
    return Verdict(
        error=error,
        reason=reason or error,
        kind=DeliveryFailure.UNREACHED,
        health=Health.DOWN,
        slows_down=slows_down,
        told="the receiver could not be reached",
    )
