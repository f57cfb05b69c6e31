"""When to look at a queue from its beginning.

Indexes keep the entries of rows that are in the queue no longer until a vacuum removes them, which
it cannot while a transaction is open elsewhere. Whoever looks again and again therefore begins
where the queue began the last time. Only a look from the beginning finds what came later with an
older time, so there is one now and then, as often as it costs little of the time.
"""

import time

SHARE = 0.05


class WholeLooks:
    """Says when the next one is due. They take no more than a twentieth of the time."""

    def __init__(self) -> None:
        self.next_at = 0.0
        """By the monotonic clock."""
        self._began = 0.0

    def begin(self) -> bool:
        """A look begins. Returns whether it has to be a whole one."""
        self._began = time.monotonic()
        return self._began >= self.next_at

    def end(self) -> None:
        """A whole look is over."""
        now = time.monotonic()
        self.next_at = now + (now - self._began) * (1 / SHARE - 1)

    def demand(self) -> None:
        """The next look has to be a whole one."""
        self.next_at = 0.0
