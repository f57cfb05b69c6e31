"""Waiting for the locks of tables so that nobody who stores email has to wait behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import asyncpg
import structlog

from app.database.engine import DB

log = structlog.get_logger(__name__)

# Whoever writes to the table waits behind: less than the second that a webhook may be held up.
LOCK_MILLISECONDS = 800
# Nobody who writes waits behind this one. It is longer than PostgreSQL's deadlock_timeout of one
# second, after which an autovacuum, which may run for hours, makes room for us.
VACUUM_LOCK_MILLISECONDS = 5_000
# How long those that hold a table are waited for, before the lock is asked for all the same.
HOLDERS_SECONDS = 30.0
POLL_SECONDS = 0.1
TELL_AFTER_SECONDS = 2.0
TELL_EVERY_SECONDS = 30.0

HOLDERS = """
SELECT l.virtualtransaction AS transaction, l.pid, a.application_name AS name
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'relation' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT to_regclass(t) FROM unnest($1::text[]) AS t)
"""
BLOCKERS = """
SELECT pid, application_name AS name FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids($1))
"""


async def in_turn(tables: list[str], work: Callable[[], Awaitable[object]]) -> None:
    """Do some work in a short transaction, as often as a lock that it needs cannot be had."""
    while True:
        await _wait_for_holders(tables)
        try:
            async with DB.transaction():
                await _have_vacuums_make_room(tables)
                await DB.run_ddl(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
                await work()
                return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            log.info("migration_repeats", tables=tables)


async def _have_vacuums_make_room(tables: list[str]) -> None:
    await DB.run_ddl(f"SET LOCAL lock_timeout = {VACUUM_LOCK_MILLISECONDS}")
    for table in tables:
        if await DB.run_ddl(f"SELECT WHERE to_regclass('{table}') IS NOT NULL"):
            await DB.run_ddl(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")


async def _wait_for_holders(tables: list[str]) -> None:
    """Wait until the transactions that hold the tables now are over, without a place in the line.

    Whoever waits for their lock has all that come later wait behind; so the lock is asked for when
    it can probably be had at once.
    """
    if not tables:
        return
    loop = asyncio.get_running_loop()
    connection = await DB.get_new_connection()
    try:
        first = {row["transaction"] for row in await connection.fetch(HOLDERS, tables)}
        started = tell_at = loop.time()
        tell_at += TELL_AFTER_SECONDS
        while first and loop.time() < started + HOLDERS_SECONDS:
            rows = await connection.fetch(HOLDERS, tables)
            holders = [row for row in rows if row["transaction"] in first]
            first = {row["transaction"] for row in holders}
            if holders and loop.time() >= tell_at:
                tell_at += TELL_EVERY_SECONDS
                _tell(holders)
            await asyncio.sleep(POLL_SECONDS if holders else 0)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def told_who_blocks(pid: int) -> AsyncIterator[None]:
    """Tell in the log whom a session waits for, as long as it does so within this block.

    Args:
        pid: the session's process, at the server.
    """

    async def tell() -> None:
        await asyncio.sleep(TELL_AFTER_SECONDS)
        while True:
            connection = await DB.get_new_connection()
            try:
                if rows := await connection.fetch(BLOCKERS, pid):
                    _tell(rows)
            finally:
                await connection.close()
            await asyncio.sleep(TELL_EVERY_SECONDS)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


def _tell(blockers: Iterable[asyncpg.Record]) -> None:
    sessions = sorted({f"{row['pid']} ({row['name'] or 'unknown'})" for row in blockers})
    log.warning(
        "migration_waits",
        explanation=(
            f"for transactions of the PostgreSQL sessions {', '.join(sessions)}; email goes on "
            "being stored. End them, or with SELECT pg_terminate_backend(<number>)"
        ),
    )
