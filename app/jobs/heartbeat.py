"""The heartbeat: each worker process says every few seconds that it lives, whether it has work or
not, so that people see who is there. Claims do not depend on it; they have their leases."""

import os
import socket
from datetime import datetime, timedelta

from app.jobs.transitions import Database

BEAT_SECONDS = 5.0
SILENT_AFTER = timedelta(seconds=20)
"""A worker that was not heard of for so long is dead, paused, or cut off from the database."""

FORGOTTEN_AFTER = timedelta(minutes=10)

BEAT = """
INSERT INTO workers (name, threads, started_at, seen_at) VALUES ($1, $2, $3, now())
ON CONFLICT (name) DO UPDATE SET
    threads = excluded.threads, started_at = excluded.started_at, seen_at = excluded.seen_at
"""
FORGET = "DELETE FROM workers WHERE seen_at < now() - $1::interval"
# Another process may have the name by now: containers start with the same few process ids.
LEAVE = "DELETE FROM workers WHERE name = $1 AND started_at = $2"


def worker_name() -> str:
    """How this process is called in an email's story and among the workers."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def beat(database: Database, *, threads: int, started_at: datetime) -> None:
    """Say that this process lives. Who was silent for minutes is forgotten."""
    await database.execute(BEAT, worker_name(), threads, started_at)
    await database.execute(FORGET, FORGOTTEN_AFTER)


async def leave(database: Database, *, started_at: datetime) -> None:
    """Say that this process ends."""
    await database.execute(LEAVE, worker_name(), started_at)
