"""The clock by which a process tells whether its leases still stand."""

import time

_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def lease_time() -> float:
    """Seconds since some moment, by a clock that nobody sets and that goes on while the machine
    sleeps, as the leases in the database do. Python's monotonic clock stands still then: a process
    that wakes up would take leases for its own that others have had for hours.

    Where a system has no such clock it is the monotonic one.
    """
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
