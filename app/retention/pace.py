"""How much the pruner removes at once, and how long it rests after it: by how long that took.

Nothing here waits or asks a clock.
"""

import math

# A batch may take so long: an email that comes meanwhile may have to wait for its commit. The first
# change of a page after a checkpoint writes the page whole to the log, about 16 KB for each email,
# so a commit of 200 may hold 3 MB, which the commits of the web process wait for.
LONGEST_BATCH_SECONDS = 0.03
MOST_ROWS = 200
LEAST_ROWS = 25
GROWS_BY = 1.25
# Where a row that is locked, or takes very long, is among them.
SMALLER_BY = 4
# The rest after a batch, by how long that took; more where it took longer than it may, since then
# others want the same processors or the same disk.
RESTS_PER_BATCH = 3.0
MOST_RESTS_PER_BATCH = 10.0


class Pace:
    """The pace of one run."""

    def __init__(self) -> None:
        self.rows = LEAST_ROWS
        """Of the next batch."""

    def removed(self, rows: int, seconds: float) -> float:
        """A batch of so many rows took so long. Returns the seconds to rest."""
        excess = seconds / LONGEST_BATCH_SECONDS
        if excess > 1:
            # In one step to what would have been in time, as far as its rows are what took long.
            self.rows = max(LEAST_ROWS, min(self.rows, int(rows / excess)))
        elif rows >= self.rows:
            self.rows = min(MOST_ROWS, math.ceil(self.rows * GROWS_BY))
        return seconds * min(RESTS_PER_BATCH * max(1.0, excess), MOST_RESTS_PER_BATCH)

    def held_up(self, seconds: float) -> float:
        """A batch was given up. Returns the seconds to rest."""
        self.rows = max(1, self.rows // SMALLER_BY)
        return seconds * RESTS_PER_BATCH
