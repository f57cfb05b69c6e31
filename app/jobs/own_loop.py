"""A thread of a worker process with an event loop of its own: what handlers do to theirs holds up
nothing there, and the other way round."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

import uvloop


class OwnLoopThread:
    """To be derived from: `_keep` is what it does until it is told to stop.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._keep())

    async def _keep(self) -> None:
        raise NotImplementedError

    def _call(self, call: Callable[[], object]) -> None:
        """Have something called in its loop, from any thread; not once it has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _end(self, seconds: float) -> None:
        """Tell it to stop, and wait so long for that."""
        self._call(self._stopping.set)
        self._thread.join(timeout=seconds)
