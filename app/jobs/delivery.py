"""One thread in each worker process that delivers finished emails.

It has an event loop and connections of its own: a handler that blocks the loop of the actors holds
up no delivery, and a receiver that is slow no handler.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from app.database.engine import DB
from app.jobs.duty import without_end
from app.jobs.heartbeat import worker_name
from app.jobs.own_loop import OwnLoopThread
from app.settings import Settings
from app.sync.breaker import Breaker, receiver_name
from app.sync.deliverer import EXTENSIONS_PER_LEASE, Deliverer
from app.sync.event import EventMaker
from app.sync.function import FunctionReceiver
from app.sync.limits import Limits
from app.sync.receiver import HttpReceiver

log = structlog.get_logger(__name__)

POOL_SIZE = 3
# What is under way has so long to end when this process stops; then it is given back.
FINISH_SECONDS = 2.0
STOP_SECONDS = 6.0


class DeliveryThread(OwnLoopThread):
    """Runs the deliverer of this process.

    Args:
        function: what MAILROOM_SYNC names; None: MAILROOM_SYNC_URL is delivered to.
        give_up: called in this thread where it cannot go on: the process is of no use without it.
    """

    def __init__(
        self,
        settings: Settings,
        function: Callable[..., Any] | None,
        give_up: Callable[[], None],
    ) -> None:
        super().__init__("delivery")
        self._settings = settings
        self._function = function
        self._give_up = give_up
        self._deliverer: Deliverer | None = None

    def ring(self) -> None:
        """There is something to deliver. May be called from any thread."""
        # Not while this process stops: others deliver it.
        self._call(self._heard)

    def stop(self) -> None:
        """End what is under way soon, or give it back."""
        self._end(STOP_SECONDS)

    def _heard(self) -> None:
        if self._deliverer is not None:
            self._deliverer.ring()

    def _run(self) -> None:
        try:
            super()._run()
        except BaseException as error:
            log.critical("delivery_cannot_go_on", exc_info=error)
            self._give_up()

    async def _keep(self) -> None:
        pool = await DB.make_pool(max_size=POOL_SIZE)
        task = asyncio.create_task(without_end("deliver", lambda: self._deliver(pool)))
        await self._stopping.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS - 1.0)
        pool.terminate()

    async def _deliver(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        settings = self._settings
        maker = EventMaker(settings)
        breaker = Breaker(
            pool,
            receiver_name(settings),
            failures=settings.sync_breaker_failures,
            first_pause_seconds=settings.sync_breaker_seconds,
        )
        await breaker.make()
        receiver = (
            HttpReceiver(settings, maker)
            if self._function is None
            else FunctionReceiver(settings, self._function)
        )
        self._deliverer = deliverer = Deliverer(
            pool,
            receiver=receiver,
            maker=maker,
            breaker=breaker,
            limits=Limits.from_settings(settings),
            worker=worker_name(),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for duty in (
                    without_end("deliver_due", deliverer.run),
                    without_end(
                        "extend_deliveries",
                        deliverer.extend,
                        every_seconds=settings.lease_seconds / EXTENSIONS_PER_LEASE,
                    ),
                ):
                    group.create_task(duty)
        finally:
            self._deliverer = None
            await deliverer.close(FINISH_SECONDS)
            await receiver.aclose()
