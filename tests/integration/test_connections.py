"""Connecting to the first of several hosts that answers; pools that keep nothing that is spent."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import asyncpg
import psycopg
import pytest
from proxy import Proxy
from structlog.testing import capture_logs
from support import make_settings, shut_out

from app.database.connections import Connect, Connection, Pool
from app.database.engine import MailroomEngine
from app.database.errors import DATABASE_AWAY
from app.database.schema_fit import say_whether_the_schema_fits


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Where connections are taken and nobody says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
def tcp_port(database_url: str) -> Iterator[int]:
    """The test's PostgreSQL, which listens on a socket only, at a port."""
    folder = psycopg.conninfo.conninfo_to_dict(database_url)["host"]
    proxy = Proxy(f"{folder}/.s.PGSQL.5432")
    yield proxy.port
    proxy.close()


def make_pool(url: str) -> Pool:
    return Pool(
        connect=Connect(url),
        connection_class=Connection,
        record_class=asyncpg.Record,
        min_size=0,
        max_size=3,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        loop=None,
    )


def two_hosts(database_url: str, first: int, second: int) -> str:
    name = quote(urlsplit(database_url).path)
    return f"postgresql://mailroom@127.0.0.1:{first},127.0.0.1:{second}{name}"


async def test_a_host_that_says_nothing_does_not_use_up_the_time_of_the_next(
    database_url: str, silent_port: int, tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.connections.CONNECT_SECONDS", 1.0)
    connect = Connect(two_hosts(database_url, silent_port, tcp_port))
    connection = await connect(connection_class=Connection)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_whoever_cannot_wait_for_a_silent_host_has_the_next_ask_another(
    database_url: str, silent_port: int, tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.connections.CONNECT_SECONDS", 3600.0)
    connect = Connect(two_hosts(database_url, silent_port, tcp_port))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await connect(connection_class=Connection)
    connection = await connect(connection_class=Connection)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


@pytest.mark.parametrize("why", ["takes none", "is unknown"])
async def test_a_database_that_takes_no_connection_counts_as_away(
    database_url: str, why: str
) -> None:
    url = database_url
    if why == "is unknown":
        url = url.replace(urlsplit(url).path, "/dropped")
    refusing = contextlib.nullcontext() if why == "is unknown" else shut_out(url)
    with refusing, pytest.raises(DATABASE_AWAY, match="database"):
        await Connect(url)(connection_class=Connection)


async def pid_of(pool: Pool) -> int:
    async with pool.acquire() as connection:
        pid: int = connection.get_server_pid()
        return pid


async def test_connections_that_cannot_write_are_replaced_in_every_pool(database_url: str) -> None:
    async with make_pool(database_url) as first, make_pool(database_url) as second:
        before = [await pid_of(first), await pid_of(second)]
        assert [await pid_of(first), await pid_of(second)] == before
        async with first.acquire() as connection:
            await connection.execute("SET default_transaction_read_only = on")
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.execute("CREATE TABLE refused ()")
        after = [await pid_of(first), await pid_of(second)]
        assert not set(before) & set(after)


async def test_an_error_of_a_statement_costs_no_connection(database_url: str) -> None:
    async with make_pool(database_url) as pool:
        before = await pid_of(pool)
        with pytest.raises(asyncpg.UndefinedTableError):
            await pool.fetch("SELECT * FROM nowhere")
        assert await pid_of(pool) == before


async def test_a_schema_that_cannot_be_read_in_time_keeps_no_process_from_its_work(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.schema_fit.SCHEMA_CHECK_SECONDS", 0.1)
    monkeypatch.setattr(
        "app.database.schema_fit.DB", MailroomEngine(make_settings(database_url=database_url))
    )
    with psycopg.connect(database_url) as holder, capture_logs() as logs:
        holder.execute("LOCK TABLE migration")
        async with asyncio.timeout(60):
            await say_whether_the_schema_fits()
    assert [(log["event"], log["error"]) for log in logs] == [
        ("database_not_reachable", "TimeoutError")
    ]
