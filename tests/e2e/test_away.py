"""What workers and the web process do when a broker is away, or a database falls silent."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from proxy import Proxy
from support import Services, email, signed, wait_until

from app.api.tokens import PREFIX as TOKEN_PREFIX
from app.intake.openapi import WEBHOOK_PATH

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

HANDLER = """
import asyncio
from pathlib import Path

import app.database.engine

app.database.engine.ANSWER_SECONDS = 2.0

async def handle(email):
    print("handling", flush=True)
    while not Path("go").exists():
        await asyncio.sleep(0.02)
"""


@pytest.fixture
def proxied(broker_url: str, services: Services) -> Iterator[Proxy]:
    """Services whose broker is behind a proxy; the database's own is one apart from it then."""
    url = broker_url or services.environment["DATABASE_URL"]
    proxy = proxy_of(url)
    services.environment["BROKER_URL"] = through(proxy, url)
    services.write_handler(HANDLER)
    yield proxy
    services.environment["BROKER_URL"] = broker_url
    services.end()
    proxy.close()


@pytest.fixture
def database_proxy(services: Services) -> Iterator[Proxy]:
    """Services whose database is behind a proxy, their broker not."""
    url = services.environment["DATABASE_URL"]
    proxy = proxy_of(url)
    services.environment |= {"DATABASE_URL": through(proxy, url), "BROKER_URL": url}
    services.environment["MAILROOM_LEASE_SECONDS"] = "30"
    services.write_handler(HANDLER)
    yield proxy
    services.end()
    proxy.close()


def proxy_of(url: str) -> Proxy:
    parts = urlsplit(url)
    if parts.hostname:
        return Proxy((parts.hostname, parts.port or 0))
    return Proxy(f"{psycopg.conninfo.conninfo_to_dict(url)['host']}/.s.PGSQL.5432")


def through(proxy: Proxy, url: str) -> str:
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}".lstrip("@"), query="").geturl()


def put(connection: Connection, emails: int) -> None:
    for _ in range(emails):
        connection.execute("INSERT INTO incoming_emails (from_email) VALUES ('erika@example.com')")
    connection.execute("NOTIFY mailroom_received")


def states(connection: Connection) -> dict[str, int]:
    rows = connection.execute("SELECT processing_status FROM incoming_emails").fetchall()
    return dict(Counter(str(row["processing_status"]) for row in rows))


def test_a_worker_stops_in_order_while_its_broker_is_away(
    services: Services, proxied: Proxy, connection: Connection
) -> None:
    put(connection, 12)
    worker = services.start(
        *("mailroom", "worker", "--concurrency", "2"), MAILROOM_WORKER_SHUTDOWN_SECONDS="1"
    )
    wait_until(lambda: states(connection) == {"processing": 2, "queued": 10}, services.log)
    proxied.cut()
    wait_until(lambda: "broker_away" in services.log(), services.log)
    worker.terminate()
    wait_until(lambda: worker.poll() is not None, services.log)
    assert worker.returncode == 0, services.log()
    # Those of a batch that the broker did not take any longer are as they were before.
    after = states(connection)
    assert set(after) <= {"queued", "received"}
    assert sum(after.values()) == 12


def test_a_broker_that_is_away_is_told_once_and_when_it_is_back_work_goes_on(
    services: Services, proxied: Proxy, connection: Connection
) -> None:
    (services.folder / "go").touch()
    services.start_worker()
    put(connection, 1)
    wait_until(lambda: states(connection) == {"completed": 1}, services.log)
    proxied.cut()
    wait_until(lambda: "broker_away" in services.log(), services.log)
    put(connection, 5)
    # The Dispatcher cannot send either.
    wait_until(lambda: "duty_interrupted" in services.log(), services.log)
    proxied.restore()
    wait_until(lambda: states(connection) == {"completed": 6}, services.log)
    wait_until(lambda: "broker_back" in services.log(), services.log)
    log = services.log()
    assert log.count("broker_away") == 1
    assert log.count("duty_interrupted") == 1
    for noise in ("Consumer encountered", "Restarting consumer", "error connecting in"):
        assert noise not in log


def test_work_goes_on_though_the_connections_to_the_broker_fell_silent(
    services: Services, proxied: Proxy, connection: Connection
) -> None:
    (services.folder / "go").touch()
    # Nothing that is sent again later helps.
    worker = services.start_worker(MAILROOM_MESSAGE_LOST_SECONDS="3600")
    put(connection, 1)
    wait_until(lambda: states(connection) == {"completed": 1}, services.log)
    proxied.fall_silent()
    put(connection, 5)
    wait_until(lambda: states(connection) == {"completed": 6}, services.log)
    assert worker.poll() is None


def test_everything_goes_on_though_all_connections_to_the_database_fell_silent(
    services: Services, database_proxy: Proxy, connection: Connection
) -> None:
    # The database is the broker, too, as it is where nothing else is said.
    services.environment |= {"BROKER_URL": "", "MAILROOM_MESSAGE_LOST_SECONDS": "3600"}
    (services.folder / "go").touch()
    services.start_web()
    worker = services.start_worker()

    def post() -> int:
        return httpx.post(services.url + WEBHOOK_PATH, **signed(email())).status_code

    assert post() == 200
    wait_until(lambda: states(connection) == {"completed": 1}, services.log)
    database_proxy.fall_silent()
    wait_until(lambda: post() == 200, services.log)
    put(connection, 4)
    wait_until(lambda: set(states(connection)) == {"completed"}, services.log)
    assert states(connection)["completed"] >= 6
    worker.terminate()
    wait_until(lambda: worker.poll() is not None, services.log)
    assert worker.returncode == 0, services.log()


def test_email_is_taken_while_programs_hold_up_all_other_connections(
    services: Services, connection: Connection
) -> None:
    services.start_web()
    asking = ThreadPoolExecutor(12)
    is_over = threading.Event()

    def ask() -> None:
        # Each gives up after a while, and others take its place.
        while not is_over.is_set():
            httpx.get(
                f"{services.url}/api/v1/jobs",
                headers={"Authorization": f"Bearer {TOKEN_PREFIX}unknown"},
                timeout=60,
            )

    with psycopg.connect(services.environment["DATABASE_URL"]) as locking:
        locking.execute("LOCK TABLE api_tokens")
        for _ in range(12):
            asking.submit(ask)
        wait_until(lambda: waiting_for_locks(connection) >= 6, services.log)
        answer = httpx.post(services.url + WEBHOOK_PATH, **signed(email()))
        assert answer.status_code == 200, answer.text
        assert httpx.get(f"{services.url}/health/ready").status_code == 200
        wait_until(lambda: waiting_for_locks(connection) >= 6, services.log)
        is_over.set()
    asking.shutdown()


def waiting_for_locks(connection: Connection) -> int:
    row = connection.execute(
        "SELECT count(*) AS sessions FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row["sessions"] if row else 0


def test_a_worker_finishes_though_its_connections_to_the_database_fell_silent(
    services: Services, database_proxy: Proxy, connection: Connection
) -> None:
    put(connection, 4)
    worker = services.start_worker()
    wait_until(lambda: services.log().count("handling") == 4, services.log)
    database_proxy.fall_silent()
    (services.folder / "go").touch()
    put(connection, 4)
    wait_until(lambda: states(connection) == {"completed": 8}, services.log)
    worker.terminate()
    wait_until(lambda: worker.poll() is not None, services.log)
    assert worker.returncode == 0, services.log()


def test_the_web_process_takes_email_again_after_its_connections_fell_silent(
    services: Services, database_proxy: Proxy, connection: Connection
) -> None:
    web = services.start_web(MAILROOM_INTAKE_DEADLINE_SECONDS="5")

    def post() -> int:
        return httpx.post(services.url + WEBHOOK_PATH, **signed(email())).status_code

    def is_ready() -> bool:
        with contextlib.suppress(httpx.TimeoutException):
            return httpx.get(f"{services.url}/health/ready").status_code == 200
        return False

    assert post() == 200
    assert is_ready()
    database_proxy.fall_silent()
    assert post() == 503
    wait_until(lambda: post() == 200, services.log)
    wait_until(is_ready, services.log)
    database_proxy.fall_silent()
    web.terminate()
    wait_until(lambda: web.poll() is not None, services.log)
    assert web.returncode == 0, services.log()
