"""Threads for calls that may hang: one for each call, so that those that hang keep no other
waiting, and no more of them than a bound.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import structlog

from app.errors import MailroomError
from app.telemetry.metrics import HUNG_CALLS, HungCall

log = structlog.get_logger(__name__)


class AllHungError(MailroomError):
    """There is no thread for another call."""


class HangingThreads:
    """Calls functions, each in a thread of its own. Works in the event loop that calls it.

    Args:
        most: threads at once, those that hang included.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0
        self._hung = 0

    async def call(self, function: Callable[[Any], Any], given: Any) -> None:
        """Call it, and wait for its end. Who is cancelled meanwhile leaves a thread that hangs.

        Raises:
            AllHungError: it was not called.
            BaseException: what the function raised.
        """
        if self._running >= self._most:
            raise AllHungError(
                f"{self._hung} of {self._running} threads hang: restart this worker, and see why"
            )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        is_hung = False

        def end(error: BaseException | None) -> None:
            self._running -= 1
            if is_hung:
                self._count_hung(-1)
            elif not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                function(given)
            except StopIteration as stopped:
                # No future can raise it.
                error = RuntimeError(f"the function raised {stopped!r}")
            except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
                error = raised
            try:
                loop.call_soon_threadsafe(end, error)
            except RuntimeError:
                # The loop has ended meanwhile.
                return

        self._running += 1
        # As a daemon it keeps no process from its end.
        threading.Thread(target=run, name="deliver", daemon=True).start()
        try:
            await done
        except asyncio.CancelledError:
            if done.cancelled():
                is_hung = True
                self._count_hung(1)
            raise

    def _count_hung(self, change: int) -> None:
        self._hung += change
        HUNG_CALLS.labels(HungCall.BEGUN if change > 0 else HungCall.ENDED).inc()
        if change > 0:
            log.warning("delivery_function_hangs", threads=self._hung, most=self._most)
