"""One clock for all contenders: when each job was accepted, began and ended.

The moments stand in a file that the benchmark and the worker's processes have in their memory
together, so that noting one costs the same few hundred nanoseconds everywhere, and no contender is
asked for what it does not record itself. Only the standard library is imported here: this is loaded
into every contender's worker.
"""

import mmap
import os
import time
from pathlib import Path

VARIABLE = "BENCHMARK_CLOCK"
COLUMNS = ("offered", "accepted", "began", "ended")
_BYTES = 8


class Clock:
    """Moments in seconds since 1970, 0 where there was none yet, by the number of the job."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        numbers = memoryview(self._memory).cast("d")
        self.count = len(numbers) // len(COLUMNS)
        self.offered, self.accepted, self.began, self.ended = (
            numbers[column * self.count : (column + 1) * self.count]
            for column in range(len(COLUMNS))
        )

    @classmethod
    def make(cls, path: Path, count: int) -> "Clock":
        """A clock for so many jobs, in a new file."""
        path.write_bytes(bytes(_BYTES * len(COLUMNS) * count))
        return cls(path)

    @classmethod
    def of_environment(cls) -> "Clock":
        """The clock of the benchmark that started this process."""
        return cls(Path(os.environ[VARIABLE]))

    def begin(self, number: int) -> None:
        """Note that a handler was called, the first time it is."""
        if not self.began[number]:
            self.began[number] = time.time()

    def end(self, number: int) -> None:
        """Note that a handler returns."""
        self.ended[number] = time.time()


class Progress:
    """Counts the moments of a clock that have come."""

    def __init__(self, moments: "memoryview[float]") -> None:
        self._moments = moments
        self._first = 0

    def done(self) -> int:
        """How many there are by now."""
        # Most come about in their order. What lies before the first that has not come is not looked
        # at again.
        count = len(self._moments)
        while self._first < count and self._moments[self._first]:
            self._first += 1
        return count - self._moments[self._first :].tolist().count(0.0)

    def all_done(self) -> bool:
        """Whether none is missing."""
        return self.done() == len(self._moments)
