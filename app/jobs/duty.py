"""What a keeper does again and again for as long as its process lives."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from app.pauses import GrowingPause

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0


async def without_end(
    name: str,
    duty: Callable[[], Awaitable[object]],
    *,
    every_seconds: float = 0.0,
    longest_pause: float = LONGEST_PAUSE_SECONDS,
) -> None:
    """Do it again and again. While it fails the pauses grow, and one line of the log says so."""
    longest_pause = min(longest_pause, LONGEST_PAUSE_SECONDS)
    pause = GrowingPause(min(FIRST_PAUSE_SECONDS, longest_pause), longest_pause)
    is_failing = False
    while True:
        began = time.monotonic()
        # A task of its own each time: what dies inside, even cancelled, cannot spoil the next.
        task = asyncio.create_task(_awaited(duty()))
        try:
            await asyncio.wait({task})
        finally:
            if not task.done():
                # What it has begun it also ends: others wait for what it gives back.
                task.cancel()
                await asyncio.wait({task})
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if is_failing and (error is None or time.monotonic() - began > longest_pause):
            log.info("duty_resumed", duty=name)
            is_failing = False
            pause.reset()
        if error is None:
            await asyncio.sleep(every_seconds)
            continue
        if not is_failing:
            log.warning("duty_interrupted", duty=name, error=type(error).__name__)
            is_failing = True
        await asyncio.sleep(pause.next_seconds())


async def _awaited(duty: Awaitable[object]) -> None:
    await duty
