"""The servers that contenders need: a PostgreSQL of the benchmark's own, and what runs already.

PostgreSQL is the embedded one with the product's settings, fsync on, in a folder that is removed
afterwards. Redis and RabbitMQ are used where they listen at their usual ports; under names of our
own, which are removed too.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import attrs
import pika
import psycopg
import redis

from app.database.embedded.server import EmbeddedPostgres

PROJECT = Path(__file__).parents[1]
REDIS_URL = "redis://127.0.0.1:6379/11"
RABBITMQ_URL = "amqp://guest:guest@127.0.0.1:5672/"
MIGRATED = "migrated"


@attrs.define
class Servers:
    """What is there for a run."""

    folder: Path
    postgres_url: str
    _connection: "psycopg.Connection[Any] | None" = None

    def _ask(self, query: LiteralString, *values: object) -> Any:
        """The first value of an answer, over one connection: opening another would take longer on a
        busy machine than what is measured."""
        if self._connection is None:
            self._connection = psycopg.connect(self.postgres_url, autocommit=True)
        row = self._connection.execute(query, values).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Close that connection."""
        if self._connection is not None:
            self._connection.close()

    def database_url(self, name: str) -> str:
        """Where a database of the server is."""
        return self.postgres_url.replace("/mailroom?", f"/{name}?")

    def copy_database(self, name: str, template: str) -> str:
        """Make a database that is a copy of another one, in place of one of this name."""
        with psycopg.connect(self.postgres_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return self.database_url(name)

    def settle(self, database_url: str) -> None:
        """Begin with statistics of what is there, and with a checkpoint just made."""
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")

    def log_bytes(self) -> int:
        """Where the write-ahead log stands."""
        return int(self._ask("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"))

    def server_version(self) -> str:
        """Of PostgreSQL."""
        return str(self._ask("SHOW server_version"))

    def server_settings(self, *names: str) -> dict[str, str]:
        """What PostgreSQL runs with."""
        return {name: str(self._ask("SELECT current_setting(%s)", name)) for name in names}

    def server_pid(self) -> int:
        """The process that all others of PostgreSQL are children of."""
        return int((self.folder / "postgres" / "postmaster.pid").read_text().split()[0])


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """PostgreSQL with a migrated database, for the time of this block."""
    # Short, because the path of a Unix socket must be.
    folder = Path(tempfile.mkdtemp(prefix="mailroom-bench-"))
    server = EmbeddedPostgres(folder)
    server.acquire()
    servers = None
    try:
        servers = Servers(folder, server.url)
        url = servers.copy_database(MIGRATED, "template1")
        subprocess.run(
            [sys.executable, "-m", "app.cli.main", "migrate"],
            cwd=PROJECT,
            env={**os.environ, "DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        yield servers
    finally:
        if servers is not None:
            servers.close()
        server.release()
        shutil.rmtree(folder, ignore_errors=True)


def why_unreachable(url: str) -> str | None:
    """Why a server cannot be used; None where it can."""
    parts = urlsplit(url)
    try:
        socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=5).close()
    except OSError:
        return f"nothing listens at {parts.hostname}:{parts.port}"
    return None


def clear_redis(prefix: str) -> None:
    """Remove the keys of one measurement."""
    with contextlib.closing(redis.Redis.from_url(REDIS_URL)) as client:
        for key in client.scan_iter(f"{prefix}*", count=1_000):
            client.delete(key)


def clear_rabbitmq(queue: str) -> None:
    """Remove the queues of one measurement."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(RABBITMQ_URL))) as server:
        for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
            server.channel().queue_delete(name)
