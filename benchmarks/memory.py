"""Whether a web process and a worker grow with the emails that they have taken.

    python -m benchmarks memory [--emails 200000] [--kilobytes 3]

One web process is posted signed emails over 32 connections, and one worker process works them off
with the built-in handler. After each tenth, when all have ended, it is looked at what both have in
memory.
"""

import argparse
import os
import time
from collections.abc import Iterator

import attrs
import psycopg
import uvloop

from benchmarks.__main__ import leave_own_settings
from benchmarks.contenders.contender import script
from benchmarks.machine import describe_machine
from benchmarks.processes import Process, running
from benchmarks.receivers import SECRET, seats
from benchmarks.report import markdown, megabytes, whole
from benchmarks.servers import Servers, running_servers
from benchmarks.web_client import make_requests, post_all

CONNECTIONS = 32
LOOKS = 10
LOOK_SECONDS = 0.25
# Without any progress for so long something is wrong.
PATIENCE_SECONDS = 120.0
OPEN = """
SELECT count(*) FROM incoming_emails WHERE processing_status NOT IN ('completed', 'failed')
"""
COMPLETED = "SELECT count(*) FROM incoming_emails WHERE processing_status = 'completed'"


@attrs.frozen
class Look:
    """What was seen at a moment."""

    completed: int
    web: int
    """Bytes of the web process, with all that it started."""

    worker: int
    """Bytes of the worker, with all its processes."""

    seconds: float
    """Since the first email."""


def _wait_until_ended(connection: "psycopg.Connection[tuple[int]]", worker: Process) -> None:
    before, deadline = -1, time.monotonic() + PATIENCE_SECONDS
    while left := _count(connection, OPEN):
        worker.check()
        if left != before:
            before, deadline = left, time.monotonic() + PATIENCE_SECONDS
        elif time.monotonic() > deadline:
            raise TimeoutError(f"{left} emails are not worked off:\n{worker.last_words()}")
        time.sleep(LOOK_SECONDS)


def _count(connection: "psycopg.Connection[tuple[int]]", query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def _measure(servers: Servers, emails: int, kilobytes: int) -> Iterator[Look]:
    (seat,) = seats(servers, ("mailroom",), lambda title, reason: None)
    environment = {**seat.environment(servers), "MAILROOM_ATTACHMENTS": "off"}
    worker_command = script("mailroom", "worker", "--processes", "1")
    with (
        running(seat.command(), environment, servers.folder / "web.log") as web,
        running(worker_command, environment, servers.folder / "worker.log") as worker,
        psycopg.connect(seat.database_url, autocommit=True) as connection,
    ):
        seat.process = web
        seat.wait()
        began = time.monotonic()
        yield Look(0, web.memory_bytes(), worker.memory_bytes(), 0.0)
        for _ in range(LOOKS):
            requests = make_requests(seat.port, SECRET, kilobytes * 1000, emails // LOOKS)
            uvloop.run(post_all(seat.port, requests, CONNECTIONS))
            _wait_until_ended(connection, worker)
            yield Look(
                _count(connection, COMPLETED),
                web.memory_bytes(),
                worker.memory_bytes(),
                time.monotonic() - began,
            )


def main() -> None:
    """Measure, and print what was seen."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--emails", type=int, default=200_000)
    parser.add_argument("--kilobytes", type=int, default=3, help="of each email")
    arguments = parser.parse_args()
    leave_own_settings()
    os.environ["MAILROOM_LOG_LEVEL"] = "warning"
    with running_servers() as servers:
        for name, value in describe_machine(servers).items():
            print(f"{name}: {value}")
        looks = list(_measure(servers, arguments.emails, arguments.kilobytes))
    rows = [
        [whole(look.completed), megabytes(look.web), megabytes(look.worker), whole(look.seconds)]
        for look in looks
    ]
    print(f"\n{markdown(['emails completed', 'web', 'worker', 'seconds'], rows)}")


if __name__ == "__main__":
    main()
