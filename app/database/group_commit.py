"""Group commit: what arrives while a write is on its way shares the next one.

Each is answered after the commit that holds it. One durable commit costs the same for one row as
for a hundred, so under load the batches grow and the cost of each row falls. Not so with large
rows: PostgreSQL compresses them one by one, on one processor for each connection. So batches that
are full of bytes go beside each other, a few at once.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import asyncpg
import attrs

Row = TypeVar("Row")
Answer = TypeVar("Answer")
Told = TypeVar("Told", contravariant=True)

# The row itself is at fault: a value that does not fit, a constraint, a limit such as JSON nested
# beyond PostgreSQL's stack. https://www.postgresql.org/docs/current/errcodes-appendix.html
ROW_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


class Waiter(Protocol[Told]):
    """Who is told what became of a row, as a future is."""

    def done(self) -> bool:
        """Whether nobody waits any longer."""

    def set_result(self, result: Told, /) -> None:
        """What became of it."""

    def set_exception(self, exception: Exception, /) -> None:
        """Why it is not committed."""


@attrs.frozen
class _Waiting(Generic[Row, Answer]):
    row: Row
    answer: Waiter[Answer]


class GroupCommit(ABC, Generic[Row, Answer]):
    """Commits rows in batches, in the event loop it is made in: one at a time, but for those that
    are full of bytes.

    Args:
        batch_rows: most rows of one batch.
        batch_bytes: a batch that has so many takes no further row; None: their size does not count.
        full_at_once: batches that are full of bytes and go at once, besides one that is not.
    """

    def __init__(
        self, *, batch_rows: int, batch_bytes: int | None = None, full_at_once: int = 1
    ) -> None:
        self._batch_rows = batch_rows
        self._batch_bytes = batch_bytes
        self._full_at_once = full_at_once
        self._full: set[asyncio.Task[None]] = set()
        self._line: deque[_Waiting[Row, Answer]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name=type(self).__name__)

    @property
    def is_closing(self) -> bool:
        return self._closing

    @property
    def waiting(self) -> int:
        """How many rows wait for the batch that is on its way."""
        return len(self._line)

    @abstractmethod
    async def commit(self, rows: Sequence[Row]) -> Sequence[Answer | Exception]:
        """Commit a batch. Returns the answer to each row, in their order; an error is raised to
        whoever stored the row. What this raises itself is raised to all of them."""

    def size(self, row: Row) -> int:
        """About how many bytes a row has; asked where `batch_bytes` is given."""
        raise NotImplementedError

    async def store(self, row: Row) -> Answer:
        """Wait until a row is committed.

        Raises:
            Exception: what `commit` answered or raised.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.put(row, answer)
        return await answer

    def put(self, row: Row, waiter: Waiter[Answer]) -> None:
        """Have a row committed, and tell somebody, for which a future for each would cost more."""
        self._line.append(_Waiting(row, waiter))
        self._arrived.set()

    async def close(self) -> None:
        """Commit what waits, then stop."""
        self._closing = True
        self._arrived.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._line:
                taken, is_full = self._take()
                if not is_full:
                    await self._answer(taken)
                    continue
                while len(self._full) >= self._full_at_once:
                    await asyncio.wait(self._full, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._answer(taken))
                self._full.add(task)
                task.add_done_callback(self._full.discard)
            if self._closing:
                if self._full:
                    await asyncio.wait(self._full)
                return

    def _take(self) -> tuple[list[_Waiting[Row, Answer]], bool]:
        """The next batch, and whether it is full of bytes."""
        count = min(len(self._line), self._batch_rows)
        if self._batch_bytes is None:
            return [self._line.popleft() for _ in range(count)], False
        taken: list[_Waiting[Row, Answer]] = []
        size = 0
        while len(taken) < count and size < self._batch_bytes:
            taken.append(self._line.popleft())
            size += self.size(taken[-1].row)
        return taken, size >= self._batch_bytes

    async def _answer(self, taken: list[_Waiting[Row, Answer]]) -> None:
        # Somebody who gave up waiting was told so: their row must not be stored unless its write is
        # already on its way.
        batch = [waiting for waiting in taken if not waiting.answer.done()]
        if not batch:
            return
        answers: Sequence[Answer | Exception]
        try:
            answers = await self.commit([waiting.row for waiting in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, everybody must be answered
            answers = [error] * len(batch)
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)
