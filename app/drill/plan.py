"""What a drill does to an installation, and what it leaves alone because it cannot reach it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import asyncpg
import attrs
import psutil

from app.errors import MailroomError

# What a COMMAND may take: a restart of PostgreSQL with its recovery. The load goes on meanwhile,
# and one that never ends would hold up the drill for ever.
COMMAND_SECONDS = 600.0

# A worker that was heard of lately; the others may be somebody else's process by now.
LOCAL_WORKERS = """
SELECT name FROM workers
WHERE starts_with(name, $1) AND seen_at > now() - interval '1 minute' ORDER BY name
"""
END_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name LIKE 'mailroom%' AND usename = current_user
"""


class StepError(MailroomError):
    """A step of the drill could not be done."""


@attrs.frozen
class Step:
    """One fault."""

    name: str
    does: str
    """In words, for the plan."""
    strike: Callable[[], Awaitable[None]] | None
    """None: it is left out."""


@attrs.frozen(kw_only=True)
class Reach:
    """What a drill was given to reach parts that are not on this machine: commands of a shell."""

    kill_worker: str | None = None
    drop_broker: str | None = None
    restart_database: str | None = None


def make_plan(
    reach: Reach, pool: "asyncpg.Pool[asyncpg.Record]", burst: Callable[[], Awaitable[None]]
) -> list[Step]:
    """The steps in their order.

    Args:
        burst: fills the line.
    """
    return [
        _by_command("kill a worker", reach.kill_worker)
        or Step(
            "kill a worker",
            "SIGKILL to a worker process of this machine that is listed in `workers`; its "
            "supervisor has to start another",
            lambda: _kill_local_worker(pool),
        ),
        _by_command("drop the broker", reach.drop_broker)
        or Step("drop the broker", "left out: say how with --drop-broker COMMAND", None),
        _by_command("restart PostgreSQL", reach.restart_database)
        or Step(
            "restart PostgreSQL",
            "ends all sessions of Mailroom's, as a restart would: --restart-database COMMAND does "
            "a real one",
            lambda: _end_sessions(pool),
        ),
        Step("fill the line", "many emails at once, as fast as they are answered", burst),
    ]


def _by_command(name: str, command: str | None) -> Step | None:
    if command is None:
        return None
    does = f"runs, for {COMMAND_SECONDS:g} seconds at most: {command}"
    return Step(name, does, lambda: _run(command))


async def _run(command: str) -> None:
    # With what it starts it is a group of its own, and ends as one.
    process = await asyncio.create_subprocess_shell(command, start_new_session=True)
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            status = await process.wait()
    except TimeoutError as error:
        raise StepError(
            f"`{command}` did not end within {COMMAND_SECONDS:g} seconds and was killed: see that "
            "what it took away is back"
        ) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status:
        raise StepError(f"`{command}` ended with {status}")


async def _kill_local_worker(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    for row in await pool.fetch(LOCAL_WORKERS, f"{socket.gethostname()}:"):
        pid = int(row["name"].rpartition(":")[2])
        try:
            process = psutil.Process(pid)
            # The number may be another program's, where a container has the same name.
            if any("app.worker" in part for part in process.cmdline()):
                os.kill(pid, signal.SIGKILL)
                return
        except (psutil.Error, OSError):
            continue
    raise StepError("no worker process of this machine may be killed: say how with --kill-worker")


async def _end_sessions(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    await pool.execute(END_SESSIONS)
