"""Group commit: what arrives while a write is on its way shares the next one.

Each is answered after the commit that holds it. One durable commit costs the same for one row as
for a hundred, so under load the batches grow and the cost of each row falls.
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
    """Commits rows in batches, one batch at a time, in the event loop it is made in.

    Args:
        batch_rows: most rows of one batch.
    """

    def __init__(self, *, batch_rows: int) -> None:
        self._batch_rows = batch_rows
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
                # Somebody who gave up waiting was told so: their row must not be stored unless
                # its write is already on its way.
                count = min(len(self._line), self._batch_rows)
                taken = [self._line.popleft() for _ in range(count)]
                await self._answer([w for w in taken if not w.answer.done()])
            if self._closing:
                return

    async def _answer(self, batch: list[_Waiting[Row, Answer]]) -> None:
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
