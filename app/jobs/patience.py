"""Waiting for a database that is away, instead of failing emails for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from app.database.errors import DATABASE_AWAY
from app.pauses import GrowingPause

log = structlog.get_logger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
GIVE_UP_AFTER_SECONDS = 600.0


async def patiently(
    doing: str,
    work: Callable[[], Awaitable[T]],
    *,
    longest_pause: float = LONGEST_PAUSE_SECONDS,
) -> T:
    """Do `work`, again and again with growing pauses while the database is away.

    Args:
        longest_pause: in seconds; what has to be done before a lease ends cannot wait as long.

    Raises:
        Exception: what the work raised, if it is another error or came after a long time.
    """
    began = time.monotonic()
    pause = GrowingPause(min(FIRST_PAUSE_SECONDS, longest_pause), longest_pause)
    while True:
        try:
            return await work()
        except DATABASE_AWAY as error:
            if time.monotonic() - began > GIVE_UP_AFTER_SECONDS:
                raise
            if pause.is_first:
                log.warning("database_away", doing=doing, error=type(error).__name__)
        await asyncio.sleep(pause.next_seconds())
