"""`mailroom drill`, against an installation of real processes."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from proxy import Proxy
from servers import Server, make_folder_of_servers
from support import PRODUCTION, Services, free_port, wait_until

from app.drill.verdict import judge

pytestmark = pytest.mark.long

SHORT = ("--rate", "20", "--seconds", "4", "--patience", "200")


def count(connection: "psycopg.Connection[dict[str, Any]]", table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row["count"])


def table_of(printed: str) -> dict[str, str]:
    """The rows of the table at the end."""
    lines = [line.strip("│ ").split("│") for line in printed.splitlines() if line.startswith("│")]
    return {name.strip(): value.strip() for name, value in lines}


def test_a_drill_strikes_and_tells_that_nothing_is_lost(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]", tmp_path: Path
) -> None:
    services.environment |= {
        "MAILROOM_LEASE_SECONDS": "4",
        "MAILROOM_MESSAGE_LOST_SECONDS": "6",
    }
    services.start_web()
    # As a supervisor does.
    services.start("mailroom", "worker", "--processes", "2")
    wait_until(lambda: count(connection, "workers") == 2, services.log)
    before = {row["name"] for row in connection.execute("SELECT name FROM workers")}
    dropped = tmp_path / "dropped"
    drill = services.run("mailroom", "drill", *SHORT, "--drop-broker", f"touch {dropped}")
    assert drill.returncode == 0, drill.stdout + drill.stderr + services.log()
    assert drill.stdout.index("1. kill a worker") < drill.stdout.index("kill a worker ...")
    assert dropped.exists()
    told = table_of(drill.stdout)
    stored = count(connection, "incoming_emails")
    assert told["sent"] == told["accepted"] == told["completed"] == str(stored)
    assert stored > 20
    assert (told["lost"], told["twice"], told["unfinished"]) == ("0", "0", "0")
    # The one that was killed says nothing any longer, or its place is another's.
    after = {row["name"] for row in connection.execute("SELECT name FROM workers")}
    assert after - before
    erase = drill.stdout.splitlines()[-1].partition("mailroom ")[2].split()
    senders = connection.execute("SELECT DISTINCT from_email FROM incoming_emails").fetchall()
    assert senders == [{"from_email": "drill@mailroom.invalid"}]
    assert services.run("mailroom", *erase).returncode == 0
    assert count(connection, "incoming_emails") == 0


@pytest.fixture
def server() -> Iterator[Server]:
    """A PostgreSQL that may be restarted."""
    folder = make_folder_of_servers()
    made = Server(folder / "data")
    made.make()
    yield made
    made.stop("immediate")
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def asked_by_command(does: Callable[[], None], folder: Path) -> Iterator[str]:
    """A command that has this process do something, and ends when it is done."""
    asked, done = folder / "asked", folder / "done"
    folder.mkdir()
    ended = threading.Event()

    def serve() -> None:
        while not ended.wait(0.05):
            if asked.exists():
                does()
                asked.unlink()
                done.touch()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"touch {asked}; until test -e {done}; do sleep 0.1; done"
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("broker_url", ["amqp"], indirect=True)
def test_a_drill_drops_a_real_broker_and_restarts_a_real_postgresql(
    server: Server, broker_url: str, tmp_path: Path
) -> None:
    services = Services(server.url(), tmp_path)
    parts = urlsplit(broker_url)
    assert parts.hostname is not None and parts.port is not None
    proxy = Proxy((parts.hostname, parts.port))
    services.environment |= {
        "BROKER_URL": broker_url.replace(str(parts.port), str(proxy.port)),
        "MAILROOM_LEASE_SECONDS": "4",
        "MAILROOM_MESSAGE_LOST_SECONDS": "6",
    }
    fell: list[str] = []

    def drop_broker() -> None:
        fell.append("broker")
        proxy.cut()
        # Whoever looks each second finds it away.
        time.sleep(2)
        proxy.restore()

    def restart_database() -> None:
        fell.append("database")
        server.stop("immediate")
        server.start()

    try:
        assert services.run("mailroom", "migrate").returncode == 0
        services.start_web()
        services.start("mailroom", "worker", "--processes", "2")
        with psycopg.connect(
            server.url(), autocommit=True, row_factory=psycopg.rows.dict_row
        ) as connection:
            wait_until(lambda: count(connection, "workers") == 2, services.log)
            before = connection.execute("SELECT pg_postmaster_start_time() AS at").fetchone()
        with (
            asked_by_command(drop_broker, tmp_path / "broker") as drops,
            asked_by_command(restart_database, tmp_path / "database") as restarts,
        ):
            drill = services.run(
                *("mailroom", "drill", *SHORT, "--drop-broker", drops),
                *("--restart-database", restarts),
            )
        assert drill.returncode == 0, drill.stdout + drill.stderr + services.log()
        assert fell == ["broker", "database"]
        told = table_of(drill.stdout)
        with psycopg.connect(server.url(), row_factory=psycopg.rows.dict_row) as connection:
            after = connection.execute("SELECT pg_postmaster_start_time() AS at").fetchone()
            stored = count(connection, "incoming_emails")
        assert before != after
        assert told["sent"] == told["accepted"] == told["completed"] == str(stored)
        assert (told["lost"], told["twice"], told["unfinished"]) == ("0", "0", "0")
        assert told["steps that could not be done"] == "none"
    finally:
        services.end()
        proxy.close()


def test_a_drill_fails_where_a_step_cannot_be_done_and_where_nothing_is_worked_off(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    services.start_web()
    drill = services.run("mailroom", "drill", "--seconds", "3", "--patience", "1", "--remove")
    assert drill.returncode == 1
    assert "no worker process of this machine may be killed" in drill.stdout
    told = table_of(drill.stdout)
    assert int(told["unfinished"]) == int(told["accepted"]) > 0
    assert told["steps that could not be done"] == "kill a worker"
    assert count(connection, "incoming_emails") == 0


def test_a_drill_does_not_begin_where_no_webhook_is_answered(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    url = f"http://127.0.0.1:{free_port()}/hook"
    drill = services.run("mailroom", "drill", "--url", url, "--seconds", "1", "--patience", "2")
    assert drill.returncode == 1
    assert "was not answered 200 within 2 seconds (ConnectError)" in drill.stderr
    assert "kill a worker ..." not in drill.stdout


def test_what_is_not_answered_any_more_is_given_up_and_told(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    web = services.start_web()
    end_web = f"kill -s KILL -- -{web.pid}"
    drill = services.run(
        *("mailroom", "drill", "--seconds", "3", "--patience", "2", "--kill-worker", end_web)
    )
    assert drill.returncode == 1, drill.stdout + drill.stderr
    told = table_of(drill.stdout)
    number, _, reasons = told["not answered 200"].partition(" ")
    assert int(number) == int(told["sent"]) - int(told["accepted"]) > 0
    assert "ConnectError" in reasons
    assert (told["lost"], told["twice"]) == ("0", "0")
    assert told["steps that could not be done"] == "none"


def test_production_is_drilled_only_when_it_is_said(services: Services) -> None:
    services.environment |= PRODUCTION
    refused = services.run("mailroom", "drill")
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    plan = services.run("mailroom", "drill", "--dry-run", "--restart-database", "restart it")
    assert plan.returncode == 0, plan.stderr
    assert "3. restart PostgreSQL: runs, for 600 seconds at most: restart it" in plan.stdout
    assert "2. drop the broker: left out" in plan.stdout


def test_the_verdict_tells_what_is_lost_and_what_is_there_twice() -> None:
    here, lost, twice = uuid4(), uuid4(), uuid4()
    verdict = judge({here, lost}, {here: "completed", twice: "queued"})
    assert (verdict.lost, verdict.twice, verdict.unfinished) == ({lost}, {twice}, 1)
    assert not verdict.keeps_promises
    assert judge({here}, {here: "failed"}).keeps_promises
    # Its answer may have been on its way.
    assert judge({here}, {here: "failed", twice: "failed"}, {twice}).keeps_promises
