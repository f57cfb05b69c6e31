"""How fast the files of emails are fetched and kept, and that the worker's memory stays flat.

    python -m benchmarks files [--emails 10000] [--files 3]

A server in a process of its own gives out the files; each has other bytes, and one in a thousand is
large. One worker process fetches them into a folder while their emails wait for them, and runs the
built-in handler. What it has in memory is looked at each second.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import psycopg

from benchmarks.__main__ import leave_own_settings
from benchmarks.processes import cpu_seconds, running
from benchmarks.servers import MIGRATED, Servers, running_servers

HOST = "127.0.0.1"
LARGEST_OF_MOST = 16 * 1024
LARGE_EVERY = 1_000
LARGE = 16 * 1024 * 1024
SEED_BYTES = 32
LOOK_SECONDS = 1.0
MEGA = 1024 * 1024

# As the Intake stores them; the oldest first.
STORE = """
INSERT INTO incoming_emails (from_email, subject, raw_body_text, received_at, attachment_urls)
SELECT 'erika@example.com', 'Rechnung', 'See the files.', now() + n * interval '1 microsecond', (
    SELECT json_agg(json_build_object('url', 'http://127.0.0.1:' || %s || '/' || n || '-' || f))
    FROM generate_series(1, %s) AS f
)
FROM generate_series(1, %s) AS n
"""
COUNT = """
SELECT (SELECT count(*) FROM incoming_emails WHERE processing_status = 'completed'),
    (SELECT count(*) FROM email_attachments WHERE state = 'kept'),
    (SELECT count(*) FROM email_attachments WHERE state NOT IN ('kept', 'pending'))
"""


@attrs.frozen
class Look:
    """What was seen at a moment."""

    seconds: float
    completed: int
    kept: int
    memory: int
    """Bytes of the worker with all its processes."""


def content_of(name: str) -> bytes:
    """The bytes of a file."""
    seed = hashlib.sha256(name.encode()).digest()
    number = int.from_bytes(seed[:4])
    size = LARGE if number % LARGE_EVERY == 0 else number % LARGEST_OF_MOST
    return (seed * (size // SEED_BYTES + 1))[:size]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            content = content_of(head.split(b" ", 2)[1].decode().lstrip("/"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content))
            writer.write(content)
            await writer.drain()
    writer.close()


async def serve(port_file: Path) -> None:
    """Give out files until this process is ended."""
    server = await asyncio.start_server(_answer, HOST, 0)
    port_file.with_suffix(".new").write_text(str(server.sockets[0].getsockname()[1]))
    port_file.with_suffix(".new").rename(port_file)
    await server.serve_forever()


@contextlib.contextmanager
def _files(folder: Path) -> Iterator[int]:
    port_file = folder / "port"
    command = [sys.executable, "-m", "benchmarks.files", "--serve", str(port_file)]
    with running(command, dict(os.environ), folder / "files.log") as process:
        while not port_file.exists():
            process.check()
            time.sleep(0.05)
        yield int(port_file.read_text())


def _measure(servers: Servers, emails: int, files: int) -> tuple[list[Look], float, int]:
    """Returns what was seen, the worker's seconds on a processor, and files that were not kept."""
    url = servers.copy_database("files", MIGRATED)
    home = servers.folder / "home"
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "MAILROOM_HOME": str(home),
        "MAILROOM_LOG_LEVEL": "warning",
        "MAILROOM_ATTACHMENT_HOSTS": HOST,
        "MAILROOM_OUTBOUND_OPEN_LOOPBACK": "true",
    }
    with _files(servers.folder) as port, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(STORE, [str(port), files, emails])
        servers.settle(url)
        command = [sys.executable, "-m", "dramatiq", "app.worker", "--processes", "1"]
        with running(command, environment, servers.folder / "worker.log") as worker:
            looks: list[Look] = []
            began = time.monotonic()
            while True:
                worker.check()
                counted = connection.execute(COUNT).fetchone()
                assert counted is not None
                completed, kept, lost = counted
                seconds = time.monotonic() - began
                looks.append(Look(seconds, completed, kept, worker.memory_bytes()))
                if completed == emails and kept + lost == emails * files:
                    break
                time.sleep(LOOK_SECONDS)
            spent = cpu_seconds(worker.popen.pid)
    shutil.rmtree(home)
    return looks, spent, lost


def _show(looks: list[Look], spent: float, lost: int, emails: int, files: int) -> None:
    last = looks[-1]
    print(
        f"{emails} emails with {files} files each in {last.seconds:.0f} s:"
        f" {last.kept / last.seconds:.0f} files a second, {lost} not kept,"
        f" {1000 * spent / (emails * files):.1f} ms of the worker's processor time a file"
    )
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        look = next(look for look in looks if look.kept >= share * (last.kept or 1))
        print(
            f"  {share:>5.0%} of the files after {look.seconds:>6.1f} s:"
            f" {look.completed:>6} emails completed, the worker has {look.memory / MEGA:.0f} MiB"
        )
    print(f"  at most {max(look.memory for look in looks) / MEGA:.0f} MiB")


def main() -> None:
    """Measure, and print what was seen."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks files",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--emails", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        asyncio.run(serve(arguments.serve))
    leave_own_settings()
    with running_servers() as servers:
        looks, spent, lost = _measure(servers, arguments.emails, arguments.files)
    _show(looks, spent, lost, arguments.emails, arguments.files)


if __name__ == "__main__":
    main()
