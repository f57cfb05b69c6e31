"""One thread in each worker process that does chores.

It has an event loop and connections of its own: whatever a handler or a chore does, neither holds
up the other.
"""

import asyncio
from collections.abc import Sequence

from app.database.engine import DB
from app.jobs.chore_runner import EXTENSIONS_PER_LEASE, LEASE_SECONDS, Chores
from app.jobs.chores import Chore
from app.jobs.own_loop import OwnLoopThread

POOL_SIZE = 2
STOP_MARGIN_SECONDS = 3.0


class ChoresThread(OwnLoopThread):
    """Does the chores of this process."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        super().__init__("chores")
        self._list = chores
        self._chores: Chores | None = None
        self._stop_seconds = 0.0

    def finish_soon(self) -> None:
        """Begin nothing more, and have what runs end soon."""
        self._call(self._heed)

    def stop(self, seconds: float) -> None:
        """Let what runs end within some seconds, and give back what does not."""
        self._stop_seconds = seconds
        self._end(seconds + STOP_MARGIN_SECONDS)

    def _heed(self) -> None:
        if self._chores is not None:
            self._chores.finish_soon()

    async def _keep(self) -> None:
        # A statement to a server that went silent must not hold up the leases.
        answer_seconds = LEASE_SECONDS / EXTENSIONS_PER_LEASE
        leases = await DB.make_pool(max_size=1, command_timeout=answer_seconds)
        pool = await DB.make_pool(max_size=POOL_SIZE)
        self._chores = chores = Chores(self._list, pool=pool, leases=leases)
        running = asyncio.create_task(chores.run())
        await self._stopping.wait()
        await chores.stop(self._stop_seconds)
        running.cancel()
        await asyncio.wait({running}, timeout=STOP_MARGIN_SECONDS / 4)
        for each in (pool, leases):
            each.terminate()
