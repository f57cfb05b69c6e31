"""Work of Mailroom in processes that are killed at a step of it, as by `kill -9`.

The process of this file has imported Mailroom once, and forks for each run. What is forked has
connections of its own, says each step before it takes it, and kills itself before the one that it
was told. Steps are the statements that go to PostgreSQL, requests to a receiver and their answers,
and what is removed from the store.
"""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import attrs

PROJECT = Path(__file__).parent.parent
WORDS_OF_A_STEP = 6
EXTENDS_LEASE = "UPDATE chores AS chore SET lease_expires_at"
"""The one step that is taken beside the others, before any of them or after."""


@attrs.frozen
class Run:
    """What became of a run."""

    status: int
    steps: list[str]
    """As far as it came; before the last one it was killed, if it was."""

    @property
    def is_killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Crashing:
    """The process that forks, as tests see it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=PROJECT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(PROJECT), str(Path(__file__).parent)]),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = 0
        """Of the run that is under way."""

    def run(self, work: str, *, kill_at: int | str | None = None, **given: Any) -> Run:
        """Do some work to its end, or to the step so many steps after the first, those that extend
        a lease not counted; or to the first one of this name."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"work": work, "kill_at": kill_at, **given}) + "\n")
        self._process.stdin.flush()
        steps: list[str] = []
        for line in self._process.stdout:
            kind, _, said = line.rstrip("\n").partition(" ")
            if kind == "ended":
                return Run(int(said), steps)
            if kind == "pid":
                self.pid = int(said)
            else:
                steps.append(said)
        raise AssertionError("the process that forks has ended")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


_kill_at: list[int | str] = []


def _step(statement: str) -> None:
    name = " ".join(statement.split()[:WORDS_OF_A_STEP])
    print(f"step {name}", flush=True)
    for kill_at in _kill_at:
        if kill_at == name or (kill_at == 0 and name != EXTENDS_LEASE):
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(kill_at, int) and name != EXTENDS_LEASE:
            _kill_at[0] = kill_at - 1


class _Connection(asyncpg.Connection):
    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        # No step: a transaction that begins, and a connection that is given back to its pool.
        if not query.startswith(("BEGIN", "SET LOCAL", "SELECT pg_advisory_unlock_all()")):
            _step(query)
        return await super().execute(query, *args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        _step(query)
        return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        _step(query)
        return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        _step(query)
        return await super().fetchval(query, *args, **options)


async def _deliver(pool: Any, given: dict[str, Any]) -> None:
    settings = make_settings(
        sync_url=given["receiver"],
        sync_secrets=SYNC_SECRET,
        sync_retry_seconds="0,0,0,0,0,0",
        sync_concurrency=1,
        sync_batch=given.get("batch", 1),
        sync_order="ticket",
    )
    maker = EventMaker(settings)
    receiver = HttpReceiver(settings, maker)

    class Stepwise:
        async def deliver(self, events: Sequence[Event]) -> Verdict:
            _step("request")
            verdict = await receiver.deliver(events)
            _step("answer")
            return verdict

    breaker = Breaker(pool, receiver_name(settings), failures=1_000, first_pause_seconds=1.0)
    await breaker.make()
    deliverer = Deliverer(
        pool,
        receiver=Stepwise(),
        maker=maker,
        breaker=breaker,
        limits=Limits.from_settings(settings),
        worker="w",
    )
    while await deliverer.run_once():
        pass
    await deliverer.close(0)
    await receiver.aclose()


async def _prune(pool: Any, given: dict[str, Any]) -> None:
    # More than one batch and more than one page of each.
    pace.LEAST_ROWS = pace.MOST_ROWS = 2
    pace.RESTS_PER_BATCH = 0.0
    pruner.PAGE = 3
    sweeps = pruner.sweeps_of(make_settings(**given["keep"]), datetime.now(UTC))

    async def run(context: ChoreContext) -> str | None:
        return await pruner.Pruner(context).run(sweeps)

    chore = Chore(pruner.NAME, 3_600.0, run)
    await Chores([chore], pool=pool, leases=pool).run_now(pruner.NAME)
    await _remove_files(pool, given)


async def _erase(pool: Any, given: dict[str, Any]) -> None:
    erasure.BATCH = 2
    criterion, actor = Criterion.sender(given["sender"]), Actor.command("olga")
    await erasure.erase(pool, criterion, by="olga", actor=actor)
    await _remove_files(pool, given)
    await _deliver(pool, given)


async def _finish_erasures(pool: Any, given: dict[str, Any]) -> None:
    await erasure.finish_left(pool)
    await _remove_files(pool, given)
    await _deliver(pool, given)


async def _remove_files(pool: Any, given: dict[str, Any]) -> None:
    store = AttachmentStore.from_url(given["store"])
    delete = store.delete

    async def stepwise(sha256: str) -> None:
        _step("delete from the store")
        await delete(sha256)

    store.delete = stepwise  # type: ignore[method-assign]
    await remove_erased(pool, store)


async def _run(request: dict[str, Any]) -> None:
    work: dict[str, Callable[[Any, dict[str, Any]], Awaitable[None]]] = {
        "deliver": _deliver,
        "prune": _prune,
        "erase": _erase,
        "finish erasures": _finish_erasures,
    }
    async with asyncpg.create_pool(
        request["database_url"], min_size=0, max_size=4, connection_class=_Connection
    ) as pool:
        await work[request["work"]](pool, request)
        _step("end")


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        process_id = os.fork()
        if not process_id:
            print(f"pid {os.getpid()}", flush=True)
            _kill_at[:] = [] if request["kill_at"] is None else [request["kill_at"]]
            try:
                asyncio.run(_run(request))
            except BaseException:  # noqa: BLE001 - it ends here, whatever it was
                traceback.print_exc()
                os._exit(1)
            # What Python does at its end takes longer than the run.
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
        print(f"ended {status}", flush=True)


if __name__ == "__main__":
    from fake_receiver import SECRET as SYNC_SECRET
    from support import make_settings

    from app.attachments.contents import remove_erased
    from app.attachments.store import AttachmentStore
    from app.audit.actors import Actor
    from app.jobs.chore_runner import Chores
    from app.jobs.chores import Chore, ChoreContext
    from app.retention import erasure, pace, pruner
    from app.retention.criteria import Criterion
    from app.sync.answers import Verdict
    from app.sync.breaker import Breaker, receiver_name
    from app.sync.deliverer import Deliverer
    from app.sync.event import Event, EventMaker
    from app.sync.limits import Limits
    from app.sync.receiver import HttpReceiver

    main()
