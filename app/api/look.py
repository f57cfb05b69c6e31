"""A look at something that many want to see: taken seldom, and one for all who ask meanwhile."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs
import structlog

from app.database.errors import CANNOT_ASK

log = structlog.get_logger(__name__)

REST_SECONDS = 5.0
REST_PER_COST = 100.0
GIVE_UP_SECONDS = 30.0
# Prometheus gives up on a scrape after 10 seconds. Then it shows what was seen before.
SCRAPE_WAITS_SECONDS = 2.0
# Alerts look at what is to be done, so one slow answer must not blind them for long.
LONGEST_REST_SECONDS = 30.0

Seen = TypeVar("Seen")


class Look(Generic[Seen]):
    """Remembers for a while what was seen, or why nothing was.

    Args:
        look: looks; it has to end by itself in some time.
        rest_seconds: how long the answer serves, by the seconds that the look took.
        patience_seconds: how long whoever asks waits for a look; then what was seen before serves.
        at_first: what serves before anything was seen; without it, the first look is waited for.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Seen]],
        *,
        rest_seconds: Callable[[float], float],
        patience_seconds: float | None = None,
        at_first: Seen | attrs.NothingType = attrs.NOTHING,
    ) -> None:
        self._look = look
        self._rest_seconds = rest_seconds
        self._patience_seconds = patience_seconds
        # None may be what is seen, too.
        self._seen: Seen | Exception = TimeoutError() if at_first is attrs.NOTHING else at_first
        self._ended_at = -math.inf
        self._cost_seconds = 0.0
        self._task: asyncio.Task[None] | None = None

    async def see(self) -> Seen:
        """What was seen last.

        Raises:
            Exception: what the look raised.
        """
        due_at = self._ended_at + self._rest_seconds(self._cost_seconds)
        if self._task is None and time.monotonic() >= due_at:
            self._task = asyncio.create_task(self._take())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=self._patience_seconds)
        if isinstance(self._seen, Exception):
            raise self._seen.with_traceback(None)
        return self._seen

    async def close(self) -> None:
        """Give up a look that is being taken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _take(self) -> None:
        began = time.monotonic()
        try:
            self._seen = await self._look()
        except Exception as error:  # noqa: BLE001 - whoever asks is told
            self._seen = error
        finally:
            self._ended_at = time.monotonic()
            self._cost_seconds = self._ended_at - began
            self._task = None


def look_for_scrapes(
    take: Callable[[], Awaitable[Seen]],
    *,
    nothing: Seen,
    what: str,
    longest_rest_seconds: float = LONGEST_REST_SECONDS,
) -> Look[Seen]:
    """A look at the database for Prometheus: what took a time is left alone for a hundred times as
    long, so that no number of scrapes is a burden on it.

    Args:
        nothing: what is seen where the database cannot be asked.
        what: is looked at, for the log.
    """

    async def ask() -> Seen:
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                return await take()
        except CANNOT_ASK as error:
            log.warning("not_counted", what=what, error=type(error).__name__)
            return nothing

    return Look(
        ask,
        rest_seconds=lambda cost: max(
            REST_SECONDS, min(REST_PER_COST * cost, longest_rest_seconds)
        ),
        patience_seconds=SCRAPE_WAITS_SECONDS,
        at_first=nothing,
    )
