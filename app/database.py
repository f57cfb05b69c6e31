"""The Piccolo engine of this process, and what stands behind its URL.

With nothing configured the embedded PostgreSQL is started by the first connection, so importing
this module (as every `piccolo` command does) needs no database.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from piccolo.engine.postgres import PostgresEngine

from app.embedded import EmbeddedPostgres
from app.settings import EMBEDDED, Settings, get_settings

# What Mailroom asks is answered in milliseconds, and a search of the archive in seconds. A server
# that is silent for so long has vanished: a failover, or a connection that a router forgot.
ANSWER_SECONDS = 30.0
CLOSE_SECONDS = 5.0
# Time in which a server may confirm that a statement is cancelled.
CANCEL_SECONDS = 2.0


class PooledConnection(asyncpg.Connection):
    """A connection to a pooler that lends a server's connection for one transaction at a time.

    asyncpg sends a statement and its arguments one after the other. Outside a transaction the
    pooler may give them to two connections, so none is outside a transaction.
    """

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        async with self._within_transaction():
            return await super().fetch(*args, **kwargs)

    async def fetchrow(self, *args: Any, **kwargs: Any) -> Any:
        async with self._within_transaction():
            return await super().fetchrow(*args, **kwargs)

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
        async with self._within_transaction():
            return await super().fetchval(*args, **kwargs)

    async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
        # Without arguments it is sent in one piece, and BEGIN itself comes this way.
        async with self._within_transaction() if args else contextlib.nullcontext():
            return await super().execute(query, *args, **kwargs)

    def _within_transaction(self) -> contextlib.AbstractAsyncContextManager[object]:
        return contextlib.nullcontext() if self.is_in_transaction() else self.transaction()


class MailroomEngine(PostgresEngine):
    """A Piccolo engine that starts the embedded server where it is the configured one."""

    def __init__(self, settings: Settings) -> None:
        self.embedded = (
            EmbeddedPostgres(settings.home) if settings.database_url == EMBEDDED else None
        )
        self.url = self.embedded.url if self.embedded else settings.database_url
        self.pool_size = settings.database_pool_size
        config: dict[str, Any] = {
            "dsn": self.url,
            "server_settings": {"application_name": "mailroom"},
        }
        if settings.behind_pgbouncer:
            config |= {"connection_class": PooledConnection, "statement_cache_size": 0}
        super().__init__(config=config)

    async def check_version(self) -> None:
        """Do not connect when the engine is made: importing it must not need a database."""

    async def prep_database(self) -> None:
        """Mailroom needs no extensions, so there is nothing to prepare."""

    async def start_connection_pool(self, **kwargs: Any) -> None:
        await self.ensure_running()
        await super().start_connection_pool(**{"min_size": 1, "max_size": self.pool_size, **kwargs})

    async def close_connection_pool(self) -> None:
        """Close the pool; a connection that is still in use, or hangs, is given up."""
        pool, self.pool = self.pool, None
        if pool is not None:
            await close_pool(pool)

    def make_pool(self, **kwargs: Any) -> "asyncpg.Pool[asyncpg.Record]":
        """Another pool with the engine's settings, for those who must not wait for the users of
        the first, or have an event loop of their own; to be awaited."""
        return asyncpg.create_pool(**{"command_timeout": ANSWER_SECONDS, **self.config, **kwargs})

    async def get_new_connection(self) -> "asyncpg.Connection[asyncpg.Record]":
        await self.ensure_running()
        return await super().get_new_connection()

    async def ensure_running(self) -> None:
        """Start the embedded server if it is configured and does not run yet.

        Raises:
            EmbeddedPostgresError: it cannot be started; the message says why.
        """
        if self.embedded is not None:
            await asyncio.to_thread(self.embedded.acquire)

    def release(self) -> None:
        """Give up this process's hold on the embedded server, which stops with its last user."""
        if self.embedded is not None:
            self.embedded.release()


DB = MailroomEngine(get_settings())


@contextlib.asynccontextmanager
async def borrowed(
    pool: "asyncpg.Pool[asyncpg.Record]",
) -> AsyncIterator["asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"]:
    """A connection of a pool, for those who give up after some time.

    One that went dead would never confirm that a statement is cancelled, and hold up whoever gives
    it back; it is given up then.
    """
    connection = await pool.acquire()
    try:
        yield connection
    finally:
        await pool.release(connection, timeout=CANCEL_SECONDS)


async def close_pool(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Close a pool when its connections were given back, or after a few seconds."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        # asyncpg has ended the connections by force.
        pass


def running_pool() -> "asyncpg.Pool[asyncpg.Record]":
    """The connection pool of this process's event loop.

    Raises:
        RuntimeError: it was not started; a programming error.
    """
    if DB.pool is None:
        raise RuntimeError("the connection pool is not running")
    return DB.pool
