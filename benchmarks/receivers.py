"""Who takes part in the benchmark of the intake: each a web server in one process; and pgbench,
which inserts the same row without any."""

import os
import socket
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from uuid import uuid4

import attrs
import httpx2

from app.database.embedded.programs import find_binaries
from benchmarks.processes import Process
from benchmarks.servers import (
    MIGRATED,
    PROJECT,
    REDIS_URL,
    Servers,
    clear_redis,
    why_unreachable,
)

SECRET = "a secret of the benchmark alone"
START_SECONDS = 60.0


@attrs.frozen
class Receiver:
    """One web server.

    `command` is the module of an app that uvicorn runs, or a command of its own.
    """

    name: str
    title: str
    note: str
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    needs_redis: bool = False

    def why_left_out(self) -> str | None:
        """Why it cannot take part here; None where it can."""
        for module in self.needs:
            if not find_spec(module):
                return f"{module} is not installed: pip install 'mailroom[benchmarks]'"
        if self.name == PGBENCH and not (find_binaries() / "pgbench").exists():
            return "the embedded PostgreSQL comes without pgbench"
        return why_unreachable(REDIS_URL) if self.needs_redis else None


def _app(module: str) -> tuple[str, ...]:
    return (
        *("-m", "uvicorn", f"benchmarks.peers.{module}:app", "--workers", "1"),
        *("--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning"),
    )


PGBENCH = "pgbench"
RECEIVERS = (
    Receiver(
        "mailroom",
        "Mailroom",
        "verifies, reads, stores; answers after the commit",
        ("-m", "app.cli.main", "web"),
        packages=("mailroom", "litestar", "uvicorn", "asyncpg"),
    ),
    Receiver(
        "mailroom-without-database",
        "Mailroom without its database",
        "the same route; the row is thrown away",
        ("-m", "benchmarks.peers.mailroom_without_database"),
    ),
    Receiver("bare-asgi", "A bare ASGI app", "reads the body and answers", _app("bare_web")),
    Receiver(
        "litestar-bare",
        "A Litestar route that does nothing",
        "reads the body and answers",
        _app("litestar_bare_web"),
        packages=("litestar",),
    ),
    Receiver(
        "original-design",
        "The original design",
        "FastAPI, synchronous SQLAlchemy, two commits, Dramatiq on Redis in the request",
        _app("original_web"),
        packages=("fastapi", "sqlalchemy", "psycopg", "dramatiq"),
        needs=("fastapi", "sqlalchemy"),
        needs_redis=True,
    ),
    Receiver(
        "fastapi-sqlalchemy-async",
        "FastAPI, asynchronous SQLAlchemy",
        "verifies; one insert and one commit a request",
        _app("fastapi_async_web"),
        packages=("fastapi", "sqlalchemy", "asyncpg"),
        needs=("fastapi", "sqlalchemy", "greenlet"),
    ),
    Receiver(
        "litestar-piccolo",
        "Litestar, a Piccolo insert a request",
        "verifies; one insert and one commit a request",
        _app("litestar_piccolo_web"),
        packages=("litestar", "piccolo", "asyncpg"),
    ),
    Receiver(
        PGBENCH,
        "pgbench, the same row",
        "no HTTP: one insert and one commit at a time over each of 50 connections at most, in C",
        (),
    ),
)


@attrs.define
class Seat:
    """A receiver with the database, port and queue that it has for a run."""

    receiver: Receiver
    database_url: str
    port: int
    queue: str
    process: Process | None = None

    @classmethod
    def make(cls, receiver: Receiver, servers: Servers) -> "Seat":
        """One with everything of its own."""
        url = servers.copy_database(f"receiver-{receiver.name}", MIGRATED)
        return cls(receiver, url, _free_port(), f"bench-{uuid4().hex[:12]}")

    def command(self) -> list[str]:
        """Its whole command."""
        command = [sys.executable, *self.receiver.command]
        if self.receiver.command[1] == "uvicorn":
            command += ["--port", str(self.port)]
        return command

    def environment(self, servers: Servers) -> dict[str, str]:
        """What it is told."""
        return {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "DATABASE_URL": self.database_url,
            "MAILROOM_PORT": str(self.port),
            "MAILROOM_HOME": str(servers.folder / "home"),
            "MAILROOM_WEBHOOK_SECRETS": SECRET,
            "MAILROOM_LOG_LEVEL": "warning",
            "BENCHMARK_SECRET": SECRET,
            "BENCHMARK_DATABASE": self.database_url,
            "BENCHMARK_BROKER": REDIS_URL,
            "BENCHMARK_QUEUE": self.queue,
        }

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: it ended.
            TimeoutError: it does not.
        """
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self.process is not None:
                self.process.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.receiver.name} does not answer")
            time.sleep(0.1)

    def clear(self) -> None:
        """Leave nothing of it on servers that are not ours."""
        if self.receiver.needs_redis:
            clear_redis(self.queue)


def seats(
    servers: Servers, names: tuple[str, ...], leave_out: Callable[[str, str], None]
) -> list[Seat]:
    """Those of these names that can take part; `leave_out` is told title and reason of others."""
    made = []
    for receiver in RECEIVERS:
        if receiver.name not in names:
            continue
        if reason := receiver.why_left_out():
            leave_out(receiver.title, reason)
        else:
            made.append(Seat.make(receiver, servers))
    return made


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        httpx2.get(f"http://127.0.0.1:{port}/health/live", timeout=10)
    except httpx2.HTTPError:
        return False
    return True
