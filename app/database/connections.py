"""Connections to PostgreSQL by asyncpg: how they are opened, how a dead one is noticed, and that
none is kept which is of no further use.

Nothing is sent when a connection is opened that a pooler such as PgBouncer would refuse.
"""

import contextlib
import functools
import socket
import time
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import structlog

from app.database.errors import DATABASE_AWAY, CannotConnectError, is_spent

log = structlog.get_logger(__name__)

T = TypeVar("T")

# For one host: one whose machine lost its power does not even refuse.
CONNECT_SECONDS = 5.0
# Time in which a server may confirm that a statement is cancelled.
CANCEL_SECONDS = 2.0
CLOSE_SECONDS = 5.0
# While a whole server cannot write, each statement finds that out anew.
RETIRE_ALL_EVERY_SECONDS = 1.0

# A peer that acknowledges nothing for so long is gone: a firewall or a NAT forgot the connection.
KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_COUNT = 2
UNACKNOWLEDGED_SECONDS = 20

# Parameters of libpq that asyncpg takes for settings of the server, which refuses them. What they
# are for is set above, or is of no concern to it.
LIBPQ_ONLY = frozenset(
    {
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval"),
        *("keepalives_count", "tcp_user_timeout", "channel_binding", "gssencmode"),
        *("load_balance_hosts", "hostaddr", "sslcompression", "sslsni", "client_encoding"),
    }
)


def keepalive_options() -> dict[int, int]:
    """Options of a TCP socket by which a peer that vanished is noticed."""
    wanted = {
        "TCP_KEEPIDLE": KEEPALIVE_IDLE_SECONDS,
        "TCP_KEEPALIVE": KEEPALIVE_IDLE_SECONDS,  # macOS
        "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
        "TCP_KEEPCNT": KEEPALIVE_COUNT,
        "TCP_USER_TIMEOUT": UNACKNOWLEDGED_SECONDS * 1_000,
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


# Prepared statements that nobody prepared, or that are there already: somebody else's session.
OF_A_POOLER = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)


@functools.cache
def _tell_of_a_pooler(kind: type[Exception]) -> None:
    """Say it once in this process; each statement may meet it."""
    log.error(
        "pooler_in_transaction_mode",
        error=kind.__name__,
        mend="set MAILROOM_BEHIND_PGBOUNCER=true and let BROKER_URL lead past the pooler",
    )


class _Retirement:
    """Counts how often all connections of this process were found to be spent at once."""

    def __init__(self) -> None:
        self.count = 0
        self._last_at = 0.0

    def retire_all(self) -> None:
        now = time.monotonic()
        if now > self._last_at + RETIRE_ALL_EVERY_SECONDS:
            self._last_at = now
            self.count += 1


# The pools of all threads heed it. Where one session cannot write, the others most likely cannot
# either, and those that only read would go on reading what is old.
_retirement = _Retirement()


class Connection(asyncpg.Connection):
    """A connection that notices when its peer vanished, and when it is of no further use."""

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        self.is_spent = False
        tcp = transport.get_extra_info("socket")
        if tcp is not None and tcp.family in (socket.AF_INET, socket.AF_INET6):
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in keepalive_options().items():
                tcp.setsockopt(socket.IPPROTO_TCP, option, value)

    def retire(self) -> None:
        """Have it ended when it is given back, and the others of this process replaced."""
        self.is_spent = True
        _retirement.retire_all()

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the driver's
        """Close it, by force where the server does not take leave of us."""
        with contextlib.suppress(TimeoutError):
            await super().close(timeout=CLOSE_SECONDS if timeout is None else timeout)

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watched(super().fetch(*args, **kwargs))

    async def fetchrow(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watched(super().fetchrow(*args, **kwargs))

    async def fetchval(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watched(super().fetchval(*args, **kwargs))

    async def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watched(super().fetchmany(*args, **kwargs))

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watched(super().execute(*args, **kwargs))

    async def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watched(super().executemany(*args, **kwargs))

    async def _watched(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except TimeoutError:
            # Of the driver's own limit on a statement.
            self.retire()
            raise
        except asyncpg.PostgresError as error:
            if is_spent(error.sqlstate):
                self.retire()
            elif isinstance(error, OF_A_POOLER):
                _tell_of_a_pooler(type(error))
            raise


class PooledConnection(Connection):
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


class Connect:
    """Connects to the first host of a URL that answers and fits, each with a time limit of its own.

    asyncpg has one limit for all, which a first host without power would use up.
    """

    def __init__(self, url: str) -> None:
        self._urls = each_host(url)

    async def __call__(self, *_: object, **options: Any) -> Connection:
        """A new connection.

        Raises:
            Exception: what the last host answered, or that it did not.
        """
        *others, last = self._urls
        for url in others:
            with contextlib.suppress(*DATABASE_AWAY):
                return await self._connect(url, options)
        return await self._connect(last, options)

    async def _connect(self, url: str, options: dict[str, Any]) -> Connection:
        try:
            connection: Connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, **options)
        except BaseException as error:
            # Also of somebody who had less time to wait: the next one asks another host first.
            self._urls = [*(other for other in self._urls if other != url), url]
            if isinstance(error, asyncpg.PostgresError) and not isinstance(error, DATABASE_AWAY):
                raise CannotConnectError(f"{type(error).__name__}: {error}") from error
            raise
        self._urls = [url, *(other for other in self._urls if other != url)]
        return connection


def can_write(url: str) -> str:
    """The URL, so that of several hosts the one that can write is taken where none is asked for."""
    parts = urlsplit(url)
    if "," not in parts.netloc or "target_session_attrs" in parts.query:
        return url
    return parts._replace(
        query=f"{parts.query}&target_session_attrs=read-write".lstrip("&")
    ).geturl()


def each_host(url: str) -> list[str]:
    """A URL for each host, with those parameters that asyncpg understands."""
    parts = urlsplit(url)
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] not in LIBPQ_ONLY])
    rest = f"{parts.path}?{query}" if query else parts.path
    login, at, hosts = parts.netloc.rpartition("@")
    return [f"{parts.scheme}://{login}{at}{host}{rest}" for host in hosts.split(",")]


class Pool(asyncpg.Pool):
    """A pool that lends no connection which is spent, and waits for none that went silent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._retirements = _retirement.count

    async def _acquire(self, timeout: float | None) -> Any:  # noqa: ASYNC109 - the driver's
        if self._retirements != _retirement.count:
            self._retirements = _retirement.count
            await self.expire_connections()
        return await super()._acquire(timeout)  # type: ignore[misc]

    async def release(
        self,
        connection: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the driver's
    ) -> None:
        """Take a connection back. What it was lent for is done, so this raises nothing."""
        if connection._con is not None and connection.is_spent:
            connection.terminate()
        try:
            await super().release(
                connection, timeout=CANCEL_SECONDS if timeout is None else timeout
            )
        except TimeoutError:
            # It was ended by force. A server that does not even confirm that a statement is
            # cancelled went silent, and then the other connections to it did, too.
            _retirement.retire_all()
        except DATABASE_AWAY as error:
            log.debug("connection_not_returned", error=type(error).__name__)
