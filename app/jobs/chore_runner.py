"""Does the chores of one process: takes those that are due, keeps their leases, records their ends.

What it cannot keep the lease of it cancels before the lease runs out, so that no chore is done
twice at once.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import timedelta

import attrs
import structlog

from app.database.errors import CANNOT_ASK
from app.errors import MailroomError
from app.jobs import chore_rows
from app.jobs.chore_rows import Taken
from app.jobs.chores import Chore, ChoreContext, ChoreLostError, ChoreRunningError, Pool
from app.jobs.duty import without_end
from app.jobs.heartbeat import worker_name
from app.lease_clock import lease_time

log = structlog.get_logger(__name__)

LEASE_SECONDS = 60.0
EXTENSIONS_PER_LEASE = 6
# What runs is cancelled so long before its lease ends; that has to be enough for it to end.
CANCEL_SECONDS = 10.0
LOOK_EVERY_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 5.0
LONGEST_SHORT_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 900.0
LONGEST_ERROR = 500


@attrs.define(eq=False)
class _Run:
    chore: Chore
    taken: Taken
    until: float
    """By the clock of leases: the end of the lease, or a moment before."""
    work: "asyncio.Task[str | None]"
    is_lost: bool = False
    error: BaseException | None = None
    """Why it did not end well."""

    def lose(self) -> None:
        if not self.is_lost and not self.work.done():
            self.is_lost = True
            self.work.cancel()


class Chores:
    """The chores of one process. Works in the event loop it is made in.

    Args:
        pool: what the chores work with.
        leases: connections for their rows, which wait for none that works.
    """

    def __init__(
        self,
        chores: Sequence[Chore],
        *,
        pool: Pool,
        leases: Pool,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._chores = {chore.name: chore for chore in chores}
        self._pool = pool
        self._leases = leases
        self._lease = timedelta(seconds=lease_seconds)
        self._cancel_seconds = min(CANCEL_SECONDS, lease_seconds / 4)
        self._extend_every_seconds = lease_seconds / EXTENSIONS_PER_LEASE
        self._runs: dict[asyncio.Task[None], _Run] = {}
        self._stopping = asyncio.Event()
        self._is_enlisted = False

    async def run(self) -> None:
        """Do what is due, again and again, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keep_leases())
            group.create_task(
                without_end("begin_chores", self.begin_due, every_seconds=LOOK_EVERY_SECONDS)
            )

    async def keep_leases(self) -> None:
        """Keep the leases of what runs, and let nothing outlive its own, until it is cancelled."""
        every = self._extend_every_seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(
                without_end("extend_chores", self.extend, every_seconds=every, longest_pause=every)
            )
            group.create_task(without_end("fence_chores", self.fence, every_seconds=every / 4))

    async def begin_due(self) -> "list[asyncio.Task[None]]":
        """Begin those that are due and that nobody does.

        Raises:
            Exception: the database is away.
        """
        await self._enlist()
        # One that was lost and has not ended yet must not run twice in this process either.
        running = {run.chore.name for run in self._runs.values()}
        return await self._begin([name for name in self._chores if name not in running])

    async def run_once(self) -> int:
        """Do those that are due to their ends. Returns how many there were."""
        begun = await self.begin_due()
        if begun:
            await asyncio.wait(begun)
        return len(begun)

    async def run_now(self, name: str) -> str | None:
        """Do one to its end, due or not. Returns what it says.

        Raises:
            ChoreRunningError: another process does it now.
            ChoreLostError: another process may do it by now; it was not done to its end.
            Exception: what the chore raised, or the database is away.
        """
        await self._enlist()
        begun = await self._begin([name], also_before_time=True)
        if not begun:
            runner = await chore_rows.find_runner(self._leases, name)
            raise ChoreRunningError(
                f"{name} is being done by {runner or 'another process'} now: wait for its end"
            )
        run = self._runs[begun[0]]
        keeping = asyncio.create_task(self.keep_leases())
        try:
            await asyncio.wait(begun)
        finally:
            # It goes on where this was interrupted.
            await self.stop(0.0)
            keeping.cancel()
        if run.error is not None:
            raise run.error
        return run.work.result()

    async def extend(self) -> None:
        """Keep the leases of what runs; cancel what others may do by now.

        Raises:
            Exception: the database is away.
        """
        runs = list(self._runs.values())
        if not runs:
            return
        until = lease_time() + self._lease.total_seconds()
        taken = [run.taken for run in runs]
        standing = await chore_rows.extend(self._leases, taken, lease=self._lease)
        for run in runs:
            if run.taken.token in standing:
                run.until = until
            else:
                run.lose()

    async def fence(self) -> None:
        """Cancel what would outlive its lease, the database being away."""
        for run in self._runs.values():
            if lease_time() > run.until - self._cancel_seconds:
                run.lose()

    def finish_soon(self) -> None:
        """Begin nothing more, and have what runs end soon."""
        self._stopping.set()

    async def stop(self, seconds: float) -> None:
        """Let what runs end within some seconds; then cancel it, for others to do."""
        self.finish_soon()
        if self._runs:
            await asyncio.wait(self._runs, timeout=seconds)
        for run in self._runs.values():
            run.work.cancel()
        if self._runs:
            await asyncio.wait(self._runs, timeout=self._cancel_seconds)

    async def _enlist(self) -> None:
        if not self._is_enlisted:
            pauses = {
                name: timedelta(seconds=chore.every_seconds) for name, chore in self._chores.items()
            }
            await chore_rows.enlist(self._leases, pauses)
            self._is_enlisted = True

    async def _begin(
        self, names: Sequence[str], *, also_before_time: bool = False
    ) -> "list[asyncio.Task[None]]":
        if not names or self._stopping.is_set():
            return []
        until = lease_time() + self._lease.total_seconds()
        taken = await chore_rows.take(
            self._leases,
            names,
            lease=self._lease,
            by=worker_name(),
            also_before_time=also_before_time,
        )
        return [self._start(one, until) for one in taken]

    def _start(self, taken: Taken, until: float) -> "asyncio.Task[None]":
        chore = self._chores[taken.name]
        context = ChoreContext(self._pool, self._stopping, lambda text: self._note(taken, text))
        work = asyncio.create_task(_awaited(chore.run(context)), name=f"chore-{chore.name}")
        run = _Run(chore, taken, until, work)
        task = asyncio.create_task(self._see_through(run))
        self._runs[task] = run
        task.add_done_callback(self._runs.pop)
        return task

    async def _note(self, taken: Taken, text: str) -> None:
        if not await chore_rows.note(self._leases, taken, text):
            raise ChoreLostError(_LOST)

    async def _see_through(self, run: _Run) -> None:
        """Wait for its end, and record it."""
        await asyncio.wait({run.work})
        try:
            await self._record(run)
        except CANNOT_ASK as error:
            # The lease runs out, and it is done again.
            log.warning("chore_not_recorded", chore=run.chore.name, error=type(error).__name__)
            run.error = run.error or error
        if isinstance(run.error, ChoreLostError):
            log.warning("chore_lost", chore=run.chore.name)

    async def _record(self, run: _Run) -> None:
        if run.work.cancelled():
            if run.is_lost:
                run.error = ChoreLostError(_LOST)
                return
            run.error = asyncio.CancelledError()
            if self._stopping.is_set():
                await chore_rows.give_back(self._leases, run.taken)
                return
        else:
            run.error = run.work.exception()
        if isinstance(run.error, ChoreLostError):
            return
        every = run.chore.every_seconds
        error = run.error
        stood = await chore_rows.end(
            self._leases,
            run.taken,
            pause=timedelta(seconds=every if error is None else _retry(every, run.taken.failures)),
            error=None if error is None else _described(error),
            text=run.work.result() if error is None else None,
        )
        if not stood:
            run.error = ChoreLostError(_LOST)
        elif error is not None and not run.taken.failures:
            log.warning("chore_failed", chore=run.chore.name, exc_info=error)
        elif error is None and run.taken.failures:
            log.info("chore_resumed", chore=run.chore.name)


_LOST = "another process may do it by now"


def _retry(every_seconds: float, failures: int) -> float:
    """The pause after a run that did not end well, in seconds.

    Args:
        failures: such runs before it.
    """
    longest = min(max(every_seconds, LONGEST_SHORT_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    return float(min(FIRST_PAUSE_SECONDS * 2 ** min(failures, 16), longest))


def _described(error: BaseException) -> str:
    """What is recorded of an error. Our own messages are for people; others may quote emails."""
    if isinstance(error, MailroomError):
        return str(error)[:LONGEST_ERROR]
    return type(error).__name__


async def _awaited(work: Awaitable[str | None]) -> str | None:
    return await work
