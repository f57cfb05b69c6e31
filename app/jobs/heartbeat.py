"""The heartbeat: each worker process says every few seconds that it lives, whether it has work or
not, so that people see who is there, and that one of them is the first: the one that is woken when
an email comes. Nothing but the time of that depends on it; claims have their leases."""

import os
import socket
from datetime import datetime, timedelta

from app.jobs.transitions.common import Database

BEAT_SECONDS = 5.0
SILENT_AFTER = timedelta(seconds=20)
"""A worker that was not heard of for so long is dead, paused, or cut off from the database."""

FORGOTTEN_AFTER = timedelta(minutes=10)

FIRST_UNLESS_SEEN = timedelta(seconds=12)
"""The next one takes its place when the first was silent for so long: two beats, and some time."""

BEAT = """
WITH beat AS (
    INSERT INTO workers (name, threads, started_at, seen_at) VALUES ($1, $2, $3, now())
    ON CONFLICT (name) DO UPDATE SET
        threads = excluded.threads, started_at = excluded.started_at, seen_at = excluded.seen_at
),
forgotten AS (
    DELETE FROM workers WHERE name <> $1 AND seen_at < now() - $5::interval
)
SELECT NOT EXISTS (
    SELECT FROM workers
    WHERE name <> $1 AND seen_at > now() - $4::interval AND (started_at, name) < ($3, $1)
)
"""
# Another process may have the name by now: containers start with the same few process ids.
LEAVE = "DELETE FROM workers WHERE name = $1 AND started_at = $2"


def worker_name() -> str:
    """How this process is called in an email's story and among the workers."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def beat(database: Database, *, name: str, threads: int, started_at: datetime) -> bool:
    """Say that a process lives. Who was silent for minutes is forgotten.

    Returns:
        Whether it is the first: of those that live, the one that started before the others.
    """
    is_first: bool = await database.fetchval(
        BEAT, name, threads, started_at, FIRST_UNLESS_SEEN, FORGOTTEN_AFTER
    )
    return is_first


async def leave(database: Database, *, started_at: datetime) -> None:
    """Say that this process ends."""
    await database.execute(LEAVE, worker_name(), started_at)
