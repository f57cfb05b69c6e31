"""A time that all who begin something have for it, watched by one timer."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

One = TypeVar("One")


class TimeLimit(Generic[One]):
    """Tells of those whose time is over, in the event loop it is made in.

    They have the same time each, so it ends in the order in which they began.

    Args:
        seconds: what each has.
        over: called with each whose time is over; it is forgotten then.
    """

    def __init__(self, seconds: float, over: Callable[[One], object]) -> None:
        self._seconds = seconds
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._since: dict[One, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, one: One) -> None:
        """Its time begins."""
        self._since[one] = time.monotonic()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def end(self, one: One) -> None:
        """Whether its time is over does not matter any longer."""
        self._since.pop(one, None)

    def end_first(self) -> One | None:
        """The same for the one that began first; None where there is none."""
        first = next(iter(self._since), None)
        if first is not None:
            del self._since[first]
        return first

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        late = []
        for one, since in self._since.items():
            if (left := since + self._seconds - now) > 0:
                self._timer = self._loop.call_later(left, self._look)
                break
            late.append(one)
        for one in late:
            del self._since[one]
            self._over(one)
