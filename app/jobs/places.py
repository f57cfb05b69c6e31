"""How much one worker process takes in hand at once."""

import asyncio
import time
from collections import deque

import attrs

# Bodies, as the database counts them. Python needs several times that for what it makes of them.
MOST_BYTES = 32 * 1024 * 1024
# Results that wait for the database. Their handlers have ended, but not their claims.
MOST_UNRECORDED = 500
# Emails are claimed before there are places for them, where these become free in about the time
# that a claim takes: handlers that are quick would wait for claims else. It is told from what ended
# lately. Handlers that began together end together, so of these at least two generations count.
AHEAD_SECONDS = 0.05
MOST_AHEAD = 100
LEAST_ENDS = 100
GENERATIONS = 2
# Handlers that take longer gain nothing by it: a claim is short beside them, and where they end
# together, what was claimed ahead is handed back before that, again and again.
QUICK_SECONDS = 1.0


@attrs.frozen
class Share:
    """What may be claimed with one statement."""

    places: int
    body_bytes: int


class Places:
    """The places for handlers in this process; of one event loop.

    A place is taken before an email is claimed, and free again when its handler has ended. The
    result may wait for the database beyond that, as long as not too many do. Where handlers are
    quick, emails may be claimed ahead of the places in which they run.

    Args:
        number: handlers that may run at once.
        most_bytes: of bodies of emails whose results are not recorded; one email is always taken.
    """

    def __init__(self, number: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._number = number
        self._most_bytes = most_bytes
        self._taken = 0
        self._running = 0
        self._ends = deque[float](maxlen=max(LEAST_ENDS, GENERATIONS * number + 1))
        self._unrecorded = 0
        self._bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._is_closed = False

    @property
    def ahead(self) -> int:
        """How many emails may be claimed beyond those that are handled. Any thread may ask."""
        ends = self._ends
        if len(ends) < (ends.maxlen or 0):
            return 0
        seconds = max(time.monotonic() - ends[0], AHEAD_SECONDS)
        if seconds * self._number > len(ends) * QUICK_SECONDS:
            return 0
        return min(MOST_AHEAD, int(len(ends) * AHEAD_SECONDS / seconds))

    @property
    def free(self) -> int:
        """How many emails may be claimed now."""
        if self._bytes >= self._most_bytes:
            return 0
        return min(
            self._number + self.ahead - self._taken,
            self._number + MOST_UNRECORDED - self._unrecorded,
        )

    async def take(self, most: int, *, until: float) -> Share | None:
        """Take as many places as are free, when there is one, and half of the bytes that are: there
        may be others who claim at the same time.

        Args:
            until: a moment of the monotonic clock.

        Returns:
            None if no place was free by then, or none are given any longer.
        """
        try:
            async with asyncio.timeout(until - time.monotonic()), self._turn:
                await self._wait()
        except TimeoutError:
            return None
        if self._is_closed:
            return None
        share = Share(min(most, self.free), (self._most_bytes - self._bytes + 1) // 2)
        self._taken += share.places
        self._bytes += share.body_bytes
        return share

    async def wait(self, seconds: float) -> None:
        """Wait until a place is free, or for so many seconds, and leave it to others."""
        try:
            async with asyncio.timeout(seconds):
                await self._wait()
        except TimeoutError:
            pass

    async def _wait(self) -> None:
        while self.free < 1 and not self._is_closed:
            self._freed.clear()
            await self._freed.wait()

    def settle(self, share: Share, claimed: list[int]) -> None:
        """With a share emails of these sizes were claimed, one to a place. The rest is free."""
        self._taken -= share.places - len(claimed)
        self._unrecorded += len(claimed)
        self._bytes -= share.body_bytes - sum(claimed)
        self._freed.set()

    @property
    def has_room(self) -> bool:
        """Whether a handler may begin."""
        return self._running < self._number

    def occupy(self) -> None:
        """A handler begins."""
        self._running += 1

    def handled(self, *, has_run: bool) -> None:
        """The handler in one place has ended, or will not begin."""
        self._taken -= 1
        if has_run:
            self._running -= 1
            self._ends.append(time.monotonic())
        self._freed.set()

    def recorded(self, body_bytes: int) -> None:
        """The result of an email of this size is recorded."""
        self._unrecorded -= 1
        self._bytes -= body_bytes
        self._freed.set()

    def close(self) -> None:
        """Give no more places. Whoever waits for one is told so."""
        self._is_closed = True
        self._freed.set()
