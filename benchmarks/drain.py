"""One measurement of a contender: how fast a backlog is worked off, or how soon an email is begun.

Everything is measured from outside, the same way for all: by the moments that the handlers note on
the clock, and by what the contender itself says is left.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import attrs

from benchmarks.clock import Clock, Progress
from benchmarks.contenders.contender import Contender, Load
from benchmarks.payloads import make_email
from benchmarks.processes import Process, cpu_seconds, running

EMAIL_BYTES = 3_000
# Of a backlog, this share starts processes, opens connections and fills caches.
WARM_UP_SHARE = 0.15
# Of a backlog, what costs are told of has to be at least so much.
LEAST_SHARE = 0.5
# Emails before those whose latency is measured.
WARM_UP_EMAILS = 20
# Looking costs a millisecond where the backlog is long.
LOOK_SECONDS = 0.02
DRAINED_LOOK_SECONDS = 0.005
# Without any progress for so long something is wrong.
PATIENCE_SECONDS = 60.0


@attrs.frozen
class Drained:
    """How a backlog was worked off."""

    emails: int
    per_second: float
    memory: int
    """Bytes of the worker, at the end."""

    worker_cpu: float | None = None
    """Seconds a thousand emails, of the worker. None, as what follows, where the backlog was over
    before it could be looked at."""

    server_cpu: float | None = None
    """Seconds a thousand emails, of PostgreSQL."""

    log_bytes: float | None = None
    """Of PostgreSQL's write-ahead log, an email."""


@attrs.frozen
class _Spent:
    """What was spent until a moment, and how many emails had ended."""

    emails: int
    worker: float
    server: float
    log_bytes: int

    @classmethod
    def until_now(cls, worker: Process, server: int, contender: Contender, emails: int) -> "_Spent":
        return cls(
            emails,
            cpu_seconds(worker.popen.pid),
            cpu_seconds(server),
            contender.servers.log_bytes(),
        )


@attrs.frozen
class Latencies:
    """Seconds of each email from the moment at which it was accepted."""

    until_begun: list[float]
    until_completed: list[float]
    """By the contender's own records; empty where it keeps none."""


class StuckError(RuntimeError):
    """A contender makes no progress."""


async def drain(
    contender: Contender, load: Load, count: int, *, until: int | None = None
) -> Drained:
    """Have it accept so many emails, then start one worker process.

    The first share of them is left out of every figure.

    Args:
        until: stop once so many have ended, and leave the rest.

    Raises:
        StuckError: it does not get on.
    """
    folder = contender.servers.folder
    clock = Clock.make(folder / "clock", count)
    await contender.begin()
    try:
        run = uuid4().hex[:12]
        await contender.fill([make_email(n, EMAIL_BYTES, run=run) for n in range(count)])
        contender.servers.settle(contender.database_url)
        server = contender.servers.server_pid()
        last = until or count
        warm = max(1, int(last * WARM_UP_SHARE))
        with running(
            contender.command(load),
            contender.environment(load, folder / "clock"),
            folder / f"{contender.name}.log",
        ) as worker:
            ended = Progress(clock.ended)
            await _wait(worker, lambda: ended.done() >= warm, ended)
            before = _Spent.until_now(worker, server, contender, ended.done())
            await _wait(worker, lambda: ended.done() >= last, ended)
            if until is None:
                await _until_drained(worker, contender)
            drained_at = time.time()
            after = _Spent.until_now(worker, server, contender, ended.done())
            memory = worker.memory_bytes()
        # By the clock, since on a busy machine a look comes late.
        moments = sorted(moment for moment in clock.ended if moment)
        took = (drained_at if until is None else moments[last - 1]) - moments[warm - 1]
        emails = after.emails - before.emails
        drained = Drained(last - warm, (last - warm) / took, memory)
        if emails < last * LEAST_SHARE:
            return drained
        return attrs.evolve(
            drained,
            worker_cpu=(after.worker - before.worker) * 1000 / emails,
            server_cpu=(after.server - before.server) * 1000 / emails,
            log_bytes=(after.log_bytes - before.log_bytes) / emails,
        )
    finally:
        await contender.finish()


async def pace(contender: Contender, load: Load, *, rate: float, seconds: float) -> Latencies:
    """Have it accept emails at a steady rate while one worker process runs.

    Raises:
        StuckError: it does not get on.
    """
    folder = contender.servers.folder
    count = WARM_UP_EMAILS + max(1, int(rate * seconds))
    clock = Clock.make(folder / "clock", count)
    await contender.begin()
    try:
        contender.servers.settle(contender.database_url)
        run = uuid4().hex[:12]
        with running(
            contender.command(load),
            contender.environment(load, folder / "clock"),
            folder / f"{contender.name}.log",
        ) as worker:
            ended = Progress(clock.ended)

            async def accept(number: int) -> None:
                email = make_email(number, EMAIL_BYTES, run=run)
                clock.offered[number] = time.time()
                await contender.accept(email)
                clock.accepted[number] = time.time()

            for number in range(WARM_UP_EMAILS):
                await accept(number)
            await _wait(worker, lambda: ended.done() >= WARM_UP_EMAILS, ended)
            began = time.perf_counter()
            async with asyncio.TaskGroup() as accepting:
                for number in range(WARM_UP_EMAILS, count):
                    due = began + (number - WARM_UP_EMAILS) / rate
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    accepting.create_task(accept(number))
            await _wait(worker, ended.all_done, ended)
            await _until_drained(worker, contender)
        numbers = range(WARM_UP_EMAILS, count)
        completed = await contender.completed_at()
        return Latencies(
            until_begun=[clock.began[n] - clock.accepted[n] for n in numbers],
            until_completed=[completed[n] - clock.accepted[n] for n in numbers]
            if completed
            else [],
        )
    finally:
        await contender.finish()


async def _wait(worker: Process, is_done: Callable[[], bool], progress: Progress) -> None:
    last, since = -1, time.monotonic()
    while not is_done():
        worker.check()
        await asyncio.sleep(LOOK_SECONDS)
        done = progress.done()
        if done != last:
            last, since = done, time.monotonic()
        elif time.monotonic() - since > PATIENCE_SECONDS:
            raise StuckError(f"{done} emails ended, then none:\n{worker.last_words()}")


async def _until_drained(worker: Process, contender: Contender) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await contender.is_drained():
        worker.check()
        if time.monotonic() > deadline:
            raise StuckError(f"every handler ended, but not the work:\n{worker.last_words()}")
        await asyncio.sleep(DRAINED_LOOK_SECONDS)
