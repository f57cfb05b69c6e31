"""Group commit: what arrives while a write is on its way shares the next one.

Each is answered after the commit that holds it. One durable commit costs the same for one row as
for a hundred, so under load the batches grow and the cost of each row falls.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeAlias, TypeVar

import asyncpg
import attrs
import structlog

from app.errors import MailroomError

log = structlog.get_logger(__name__)

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row = TypeVar("Row")
Answer = TypeVar("Answer")

# The row itself is at fault: a value that does not fit, a constraint, a limit such as JSON nested
# beyond PostgreSQL's stack. https://www.postgresql.org/docs/current/errcodes-appendix.html
ROW_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


class NotStoredError(MailroomError):
    """It is not stored; the sender has to try again."""


@attrs.frozen
class _Waiting(Generic[Row, Answer]):
    row: Row
    answer: "asyncio.Future[Answer]"


class GroupCommit(ABC, Generic[Row, Answer]):
    """Stores rows in batches over one connection at a time.

    Args:
        pool: connections to the database.
        batch_rows: most rows of one write.
        max_waiting: most rows that wait; further ones are refused at once.
        deadline_seconds: time that one batch is given.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        batch_rows: int,
        max_waiting: int,
        deadline_seconds: float,
    ) -> None:
        self._pool = pool
        self._batch_rows = batch_rows
        self._max_waiting = max_waiting
        self._deadline_seconds = deadline_seconds
        self._line: deque[_Waiting[Row, Answer]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name=type(self).__name__)

    @abstractmethod
    async def write(
        self, connection: Connection, rows: Sequence[Row]
    ) -> Sequence[Answer | NotStoredError]:
        """Write a batch and commit it. Returns the answer to each row, in their order."""

    async def write_alone(self, connection: Connection, row: Row) -> Answer | NotStoredError:
        """Write one row of a batch in which the database refused some row."""
        try:
            (answer,) = await self.write(connection, [row])
        except ROW_ERRORS as error:
            log.warning("row_refused", error=type(error).__name__)
            return NotStoredError("the database refuses this email: send the webhook again")
        return answer

    async def store(self, row: Row) -> Answer:
        """Wait until a row is committed.

        Raises:
            NotStoredError: it is not, and the caller has to say so.
        """
        if self._closing:
            raise NotStoredError("the server is stopping: send the webhook again")
        if len(self._line) >= self._max_waiting:
            raise NotStoredError("too many emails wait for the database: send the webhook again")
        waiting = _Waiting[Row, Answer](row, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def close(self) -> None:
        """Store what waits, then stop."""
        self._closing = True
        self._arrived.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._line:
                # Somebody who gave up waiting was told 503: their row must not be stored unless
                # its write is already on its way.
                count = min(len(self._line), self._batch_rows)
                taken = [self._line.popleft() for _ in range(count)]
                await self._store([w for w in taken if not w.answer.done()])
            if self._closing:
                return

    async def _store(self, batch: list[_Waiting[Row, Answer]]) -> None:
        if not batch:
            return
        answers: Sequence[Answer | NotStoredError]
        try:
            async with asyncio.timeout(self._deadline_seconds), self._pool.acquire() as connection:
                answers = await self._write(connection, [waiting.row for waiting in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders must be answered
            log.error("not_stored", rows=len(batch), error=type(error).__name__)
            away = "the database does not take emails at the moment: send the webhook again"
            answers = [NotStoredError(away) for _ in batch]
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, NotStoredError):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)

    async def _write(
        self, connection: Connection, rows: Sequence[Row]
    ) -> Sequence[Answer | NotStoredError]:
        try:
            return await self.write(connection, rows)
        except ROW_ERRORS:
            # A row must not fail for another's fault.
            return [await self.write_alone(connection, row) for row in rows]
