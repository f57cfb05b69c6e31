"""The Piccolo engine of this process, and what stands behind its URL.

With nothing configured the embedded PostgreSQL is started by the first connection, so importing
this module (as every `piccolo` command does) needs no database.
"""

import asyncio
from typing import Any

import asyncpg
from piccolo.engine.postgres import PostgresEngine

from app.embedded import EmbeddedPostgres
from app.settings import EMBEDDED, Settings, get_settings


class MailroomEngine(PostgresEngine):
    """A Piccolo engine that starts the embedded server where it is the configured one."""

    def __init__(self, settings: Settings) -> None:
        self.embedded = (
            EmbeddedPostgres(settings.home) if settings.database_url == EMBEDDED else None
        )
        self.url = self.embedded.url if self.embedded else settings.database_url
        self.pool_size = settings.database_pool_size
        super().__init__(
            config={"dsn": self.url, "server_settings": {"application_name": "mailroom"}}
        )

    async def check_version(self) -> None:
        """Do not connect when the engine is made: importing it must not need a database."""

    async def prep_database(self) -> None:
        """Mailroom needs no extensions, so there is nothing to prepare."""

    async def start_connection_pool(self, **kwargs: Any) -> None:
        await self.ensure_running()
        await super().start_connection_pool(**{"min_size": 1, "max_size": self.pool_size, **kwargs})

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


def running_pool() -> "asyncpg.Pool[asyncpg.Record]":
    """The connection pool of this process's event loop.

    Raises:
        RuntimeError: it was not started; a programming error.
    """
    if DB.pool is None:
        raise RuntimeError("the connection pool is not running")
    return DB.pool
