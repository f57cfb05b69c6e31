"""The Dispatcher: received -> queued, and the message to the broker, as well for what was brought
back and for retries that fell due.

The database commits before the broker takes the first message, so a slow broker locks no email.
What was not sent goes back to where it came from. If this process dies in between, the message
counts as lost after a while, and the Rescuer has it sent again.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg
import structlog

from app.jobs import canary
from app.jobs.canary import SendCanary
from app.jobs.messages import ids_of_message
from app.jobs.transitions import dispatching
from app.jobs.transitions.common import Database
from app.jobs.transitions.dispatching import THE_BEGINNING, Files, Queued, Since
from app.jobs.whole_looks import WholeLooks
from app.telemetry.metrics import BROKER_ERRORS, BrokerUse

log = structlog.get_logger(__name__)

# The messages of so many emails are lost with a Dispatcher that dies, and so far may two of them
# disturb the order of receipt.
BATCH = 200
# A notification may be lost, with its connection or behind a pooler.
POLL_SECONDS = 1.0
LOOK_SECONDS = 2.0
# The first one sends thousands in that time. With a backlog the others would disturb the order of
# receipt, and take from the first one's places.
REST_SECONDS = 0.5
# Nobody tells when workers have taken what fills the broker, and a thousand emails may be a third
# of a second's work.
FULL_SECONDS = 0.1
# What a broker may take for a batch. Where it took one message at least it is slow, and not away.
BROKER_SECONDS = 30.0
CHANNEL = "mailroom_received"

Send = Callable[[Sequence[UUID]], None]


class Dispatcher:
    """Hands emails to the broker. The first of all is woken by NOTIFY as they come. The others look
    now and then, so that an email does not wake each of them; what they find they send as well,
    because the first may be busy, hang, or not reach the broker.

    Args:
        pool: connections of the event loop it runs in.
        send: gives the message of some emails to the broker; it blocks, and is called in a thread.
        depth: how many emails may wait in the broker at once.
        concurrency: how many of them a process handles at once.
        ahead: how many more of them it may claim at the moment.
        files: what is done about the files of emails; None: nothing.
        ring: called when there are files to be fetched.
        send_canary: gives the message of a canary to the broker, as `send` does; None: there is
            none.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        send: Send,
        depth: int,
        concurrency: int,
        ahead: Callable[[], int] = lambda: 0,
        files: Files | None = None,
        ring: Callable[[], None] = lambda: None,
        send_canary: SendCanary | None = None,
    ) -> None:
        self._pool = pool
        self._send = send
        self._send_canary = send_canary
        self._depth = depth
        self._concurrency = concurrency
        self._ahead = ahead
        self._files = files
        self._ring = ring
        self._rung = asyncio.Event()
        self._odd_to_fresh = True
        self._mark = THE_BEGINNING
        self._whole_looks = WholeLooks()
        self._was_whole = False
        self._room = max(1, min(BATCH, depth // 4))
        self._has_filled = False
        self._is_first = False

    def be_first(self, is_first: bool) -> None:
        """Listen from now on, or no longer. To be called in its event loop."""
        if is_first != self._is_first:
            self._is_first = is_first
            self._rung.set()

    def _heard(self, *_: object) -> None:
        self._rung.set()

    async def run(self) -> None:
        """Dispatch for ever.

        Raises:
            Exception: database or broker are away; call it again after a pause.
        """
        while True:
            if self._is_first:
                await self._run_first()
            else:
                # Not all of them at the same moment.
                seconds = LOOK_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
                await self._dispatch_all(self._pool, seconds)

    async def _run_first(self) -> None:
        connection = await self._pool.acquire()
        try:
            await connection.add_listener(CHANNEL, self._heard)
            while self._is_first:
                # Over the connection that listens, so that its death is noticed.
                await self._dispatch_all(connection, POLL_SECONDS)
        finally:
            # One that died without a word would never confirm that it listens no longer.
            connection.terminate()
            await self._pool.release(connection)

    async def _dispatch_all(self, database: Database, seconds: float) -> None:
        """Dispatch what there is, then wait until more comes or so much time has passed."""
        self._rung.clear()
        while await self.dispatch_batch(database):
            if not self._is_first:
                await _wait_for(self._rung, REST_SECONDS)
        if self._send_canary is not None and (token := await canary.queue(database)) is not None:
            # One that the broker does not take goes no further, which is what it is to show.
            async with asyncio.timeout(BROKER_SECONDS):
                await asyncio.to_thread(self._send_canary, token)
        if self._is_first and self._has_filled:
            self._has_filled = await dispatching.has_no_room(
                database, room=self._room, depth=self._depth, since=self._mark
            )
            await asyncio.sleep(FULL_SECONDS)
            return
        if not self._was_whole:
            seconds = min(seconds, max(0.0, self._whole_looks.next_at - time.monotonic()))
        await _wait_for(self._rung, seconds)

    async def dispatch_batch(self, database: "Database | None" = None) -> bool:
        """Hand one batch to the broker.

        Args:
            database: over which to ask, instead of the pool.

        Returns:
            Whether there may be more.

        Raises:
            Exception: the database or the broker is away. What was not sent is as it was before,
                unless the database is away now.
        """
        database = database or self._pool
        queued = await self._look(database)
        if not queued:
            return False
        self._has_filled = queued[0].waited + len(queued) > self._depth - self._room
        # Where there is room for one at a time, too, neither kind waits for the other's end.
        self._odd_to_fresh = not self._odd_to_fresh
        # The others wait for their files first.
        with_message = [one for one in queued if one.queued_at is not None]
        sending = _Sending(self._send, with_message, self._concurrency + self._ahead())
        try:
            if waiting := [one.email_id for one in queued if one.queued_at is None]:
                self._ring()
                # Of some no file is to be fetched.
                await dispatching.end_wait(database, waiting)
            if with_message:
                with BROKER_ERRORS.labels(BrokerUse.SEND).count_exceptions():
                    await sending.run()
        finally:
            if unsent := sending.unsent():
                self._whole_looks.demand()
                await dispatching.unqueue(database, unsent)
        return True

    async def _look(self, database: Database) -> list[Queued]:
        # Such a look finds as well what another Dispatcher gave back.
        self._was_whole = self._whole_looks.begin()
        queued = await dispatching.queue(
            database,
            limit=BATCH,
            depth=self._depth,
            odd_to_fresh=self._odd_to_fresh,
            since=THE_BEGINNING if self._was_whole else self._mark,
            files=self._files,
        )
        if self._was_whole:
            self._whole_looks.end()
        self._mark = _after(queued, self._mark)
        return queued


class _Sending:
    """Messages on their way to the broker."""

    def __init__(self, send: Send, queued: Sequence[Queued], at_once: int) -> None:
        self._send = send
        self._queued = queued
        self._ids_of_message = ids_of_message(len(queued), at_once=at_once)
        self._sent = 0
        self._is_over = False

    async def run(self) -> None:
        """Send them in a thread, as many as the broker takes in its time.

        Raises:
            TimeoutError: it took none.
            Exception: it is away.
        """
        try:
            async with asyncio.timeout(BROKER_SECONDS):
                await asyncio.to_thread(self._send_all)
        except TimeoutError:
            if not self._sent:
                raise
            log.warning("broker_slow", sent=self._sent, seconds=BROKER_SECONDS)
        finally:
            # A thread cannot be cancelled; it would go on with what was given back.
            self._is_over = True

    def unsent(self) -> Sequence[Queued]:
        return self._queued[self._sent :]

    def _send_all(self) -> None:
        while self._sent < len(self._queued) and not self._is_over:
            of_message = self._queued[self._sent : self._sent + self._ids_of_message]
            self._send([queued.email_id for queued in of_message])
            self._sent += len(of_message)
            for queued in of_message:
                log.debug("sent_to_broker", email_id=str(queued.email_id))


def _after(queued: Sequence[Queued], mark: Since) -> Since:
    """From where to look after these were found. That may be an earlier moment than before, for
    there may be more of what came late."""
    if not queued:
        return mark
    fresh = [one.received_at for one in queued if one.is_fresh]
    sent = [one.queued_at for one in queued if one.queued_at is not None]
    return Since(
        max(fresh, default=mark.received_at),
        queued[0].oldest_message or min(sent, default=mark.queued_at),
    )


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
