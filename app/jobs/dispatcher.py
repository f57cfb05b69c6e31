"""The Dispatcher: received -> queued, and the message to the broker, as well for what was brought
back and for retries that fell due.

The broker takes the messages before the transaction commits. If the broker refuses, the emails
stay `received`; if this process dies in between, a message comes for an email that is still
`received`, and the claim takes it all the same.
"""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg
import structlog

from app.jobs import transitions
from app.metrics import BROKER_ERRORS, BrokerUse

log = structlog.get_logger(__name__)

# Row locks are held while the broker takes a batch, and workers that are quick wait for them.
BATCH = 50
POLL_SECONDS = 1.0
BROKER_SECONDS = 30.0
CHANNEL = "mailroom_received"

# While the broker takes a batch its emails are locked, and whoever got one of the messages waits.
# If this process is stopped or cut off just then, PostgreSQL ends the transaction.
MOST_IDLE_SECONDS = BROKER_SECONDS + 10.0
END_IF_IDLE = "SELECT set_config('idle_in_transaction_session_timeout', $1, true)"

Send = Callable[[Sequence[UUID]], None]


class Dispatcher:
    """Hands emails to the broker, as NOTIFY rings or a second has passed.

    Args:
        pool: connections of the event loop it runs in.
        send: gives a batch of messages to the broker; it blocks, and is called in a thread.
        depth: how many emails may wait in the broker at once.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, send: Send, depth: int) -> None:
        self._pool = pool
        self._send = send
        self._depth = depth
        self._rung = asyncio.Event()

    def _heard(self, *_: object) -> None:
        self._rung.set()

    async def run(self) -> None:
        """Dispatch for ever.

        Raises:
            Exception: database or broker are away; call it again after a pause.
        """
        async with self._pool.acquire() as connection:
            await connection.add_listener(CHANNEL, self._heard)
            try:
                while True:
                    self._rung.clear()
                    while await self.dispatch_batch():
                        pass
                    if connection.is_closed():
                        raise ConnectionError("the connection that listens was closed")
                    await _wait_for(self._rung, POLL_SECONDS)
            finally:
                await connection.remove_listener(CHANNEL, self._heard)

    async def dispatch_batch(self) -> bool:
        """Hand one batch to the broker.

        Returns:
            Whether there may be more.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(END_IF_IDLE, f"{MOST_IDLE_SECONDS * 1_000:.0f}")
            bounds = {"limit": BATCH, "depth": self._depth}
            queued = await transitions.queue_again(connection, **bounds)
            if not queued:
                queued = await transitions.queue_received(connection, **bounds)
            if queued:
                with BROKER_ERRORS.labels(BrokerUse.SEND).count_exceptions():
                    async with asyncio.timeout(BROKER_SECONDS):
                        await asyncio.to_thread(self._send, queued)
                for email_id in queued:
                    log.debug("sent_to_broker", email_id=str(email_id))
        return len(queued) == BATCH


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
