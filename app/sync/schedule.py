"""When a delivery is tried again."""

import random
from collections.abc import Sequence
from datetime import timedelta

JITTER = 0.2
# What a receiver asks for beyond it is not heeded.
LONGEST_REST_SECONDS = 3_600.0


def pause_before(pauses: Sequence[float], failed_tries: int) -> timedelta | None:
    """The pause after so many tries that failed; None where no further try is left.

    It is a little longer or shorter each time, so that what failed together is not tried together.

    Args:
        pauses: in seconds, before each try; the first one belongs to the first try.
    """
    if failed_tries >= len(pauses):
        return None
    spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return timedelta(seconds=pauses[failed_tries] * spread)


def probe_pause(first_seconds: float, failed_probes: int) -> timedelta:
    """The pause before the next probe of a receiver that is down: it doubles, up to sixty times."""
    return timedelta(seconds=first_seconds * min(2.0 ** min(failed_probes, 30), 60.0))
