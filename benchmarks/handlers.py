"""What is done with each email, the same for every contender: nothing, or 100 ms of waiting.

The number of the job is the email's ticket id.
"""

import asyncio
import os
import time

from benchmarks.clock import VARIABLE, Clock

WAIT_SECONDS = 0.1
KIND = "BENCHMARK_HANDLER"
KINDS = ("empty", "wait")

clock = Clock.of_environment() if VARIABLE in os.environ else None
_seconds = WAIT_SECONDS if os.environ.get(KIND) == "wait" else 0.0


async def work(number: int) -> None:
    """Handle a job in an event loop."""
    assert clock is not None
    clock.begin(number)
    if _seconds:
        await asyncio.sleep(_seconds)
    clock.end(number)


def work_in_thread(number: int) -> None:
    """Handle a job in a thread of its own."""
    assert clock is not None
    clock.begin(number)
    if _seconds:
        time.sleep(_seconds)
    clock.end(number)
