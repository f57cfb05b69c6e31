"""The Piccolo engine of this process, and what stands behind its URL.

With nothing configured the embedded PostgreSQL is started by the first connection, so importing
this module (as every `piccolo` command does) needs no database.
"""

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from piccolo.engine.postgres import PostgresEngine

from app.database.connections import Connect, Connection, Pool, PooledConnection, can_write
from app.setting_groups.database import EMBEDDED
from app.settings import Settings, get_settings

if TYPE_CHECKING:
    from app.database.embedded.server import EmbeddedPostgres

# What Mailroom asks is answered in milliseconds, and a search of the archive in seconds. A server
# that is silent for so long has vanished: a failover, or a connection that a router forgot.
ANSWER_SECONDS = 30.0
CLOSE_SECONDS = 5.0


class MailroomEngine(PostgresEngine):
    """A Piccolo engine that starts the embedded server where it is the configured one."""

    def __init__(self, settings: Settings) -> None:
        self.embedded = _embedded_in(settings.home) if settings.database_url == EMBEDDED else None
        self.url = self.embedded.url if self.embedded else can_write(settings.database_url)
        self.pool_size = settings.database_pool_size
        self._connect = Connect(self.url)
        config: dict[str, Any] = {
            "connection_class": Connection,
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
        if self.pool is None:
            self.pool = await self._make_pool(**{"max_size": self.pool_size, **kwargs})

    async def close_connection_pool(self) -> None:
        """Close the pool; a connection that is still in use, or hangs, is given up."""
        pool, self.pool = self.pool, None
        if pool is not None:
            await close_pool(pool)

    def make_pool(self, **kwargs: Any) -> Pool:
        """Another pool with the engine's settings, for those who must not wait for the users of
        the first, or have an event loop of their own; to be awaited.

        What is done to a session counts for the next one that borrows the connection: only what is
        Mailroom's own, and sets something for a transaction at most, may use it.
        """
        return self._make_pool(
            **{"command_timeout": ANSWER_SECONDS, "reset": leave_session, **kwargs}
        )

    def _make_pool(self, **kwargs: Any) -> Pool:
        # No connection is opened yet: a database that is away is met by those who ask it.
        standard = {
            "min_size": 0,
            "max_queries": 50_000,
            "max_inactive_connection_lifetime": 300.0,
            "record_class": asyncpg.Record,
            "loop": None,
        }
        return Pool(connect=self._connect, **{**standard, **self.config, **kwargs})

    async def get_new_connection(self) -> "asyncpg.Connection[asyncpg.Record]":
        await self.ensure_running()
        return await self._connect(**self.config)

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


def _embedded_in(home: Path) -> "EmbeddedPostgres":
    # It brings another driver along, which a web process needs for nothing else.
    server = importlib.import_module("app.database.embedded.server")
    return cast("EmbeddedPostgres", server.EmbeddedPostgres(home))


async def leave_session(connection: object) -> None:
    """Do without the four statements that asyncpg sends when a connection is given back.

    They cost a journey, and PostgreSQL as much as many a statement of ours. A transaction that was
    left open is rolled back all the same.
    """


DB = MailroomEngine(get_settings())


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
