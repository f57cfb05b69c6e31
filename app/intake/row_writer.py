"""Rows of the Intake on their way into the database: many with one commit, within a deadline, and
each answered so that its sender knows whether to come again."""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import asyncpg
import structlog

from app.database.group_commit import ROW_ERRORS, Answer, GroupCommit, Row
from app.errors import MailroomError

log = structlog.get_logger(__name__)

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class NotStoredError(MailroomError):
    """It is not stored; the sender has to try again."""


class RowWriter(GroupCommit[Row, Answer]):
    """Stores rows in batches, each over one connection.

    Args:
        pool: connections to the database.
        batch_rows: most rows of one write.
        batch_bytes, full_at_once: as `GroupCommit` has them.
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
        batch_bytes: int | None = None,
        full_at_once: int = 1,
    ) -> None:
        super().__init__(batch_rows=batch_rows, batch_bytes=batch_bytes, full_at_once=full_at_once)
        self._pool = pool
        self._max_waiting = max_waiting
        self._deadline_seconds = deadline_seconds

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
        if self.is_closing:
            raise NotStoredError("the server is stopping: send the webhook again")
        if self.waiting >= self._max_waiting:
            raise NotStoredError("too many emails wait for the database: send the webhook again")
        return await super().store(row)

    async def commit(self, rows: Sequence[Row]) -> Sequence[Answer | Exception]:
        try:
            async with asyncio.timeout(self._deadline_seconds), self._pool.acquire() as connection:
                return await self._write(connection, rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders must be answered
            log.error("not_stored", rows=len(rows), error=type(error).__name__)
            away = "the database does not take emails at the moment: send the webhook again"
            return [NotStoredError(away) for _ in rows]

    async def _write(
        self, connection: Connection, rows: Sequence[Row]
    ) -> Sequence[Answer | NotStoredError]:
        try:
            return await self.write(connection, rows)
        except ROW_ERRORS:
            # A row must not fail for another's fault.
            return [await self.write_alone(connection, row) for row in rows]
