"""A database that fails over: sessions that stay read-only while new ones can write, and a real
standby that is promoted."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from databases import Databases
from servers import Pair, make_folder_of_servers, programs_of_16
from support import SECRET, Services, email, need, signed, wait_until
from zendesk.account import WEBHOOK_SECRET, Account
from zendesk.server import api_in_thread

from app.database.embedded.programs import find_binaries
from app.drill.load import Load, Webhook
from app.drill.verdict import Verdict, judge
from app.intake.openapi import WEBHOOK_PATH

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

# What `up` of a failover looks like to a session: it lives, answers, and cannot write.
SET_READ_ONLY = 'ALTER DATABASE "{name}" SET default_transaction_read_only = on'
RESET = 'ALTER DATABASE "{name}" RESET default_transaction_read_only'
END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
COUNT_SESSIONS = (
    "SELECT application_name, count(*) AS sessions FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1"
)


# Claims and messages that are lost with a primary come again after these; by default that takes as
# long as a test waits.
SOON = {"MAILROOM_LEASE_SECONDS": "4", "MAILROOM_MESSAGE_LOST_SECONDS": "2"}


def post(services: Services, secret: str = SECRET, **fields: Any) -> int:
    request = signed(email(**fields), secret=secret)
    return httpx.post(services.url + WEBHOOK_PATH, **request, timeout=30).status_code


def ready(services: Services) -> httpx.Response:
    return httpx.get(f"{services.url}/health/ready", timeout=30)


def states(connection: Connection) -> dict[str, int]:
    rows = connection.execute("SELECT processing_status FROM incoming_emails").fetchall()
    return dict(Counter(str(row["processing_status"]) for row in rows))


def test_sessions_that_stay_read_only_are_replaced(
    services: Services, connection: Connection, databases: Databases, broker_url: str
) -> None:
    services.environment |= {"BROKER_URL": broker_url, **SOON}
    name = databases.name_of(services.environment["DATABASE_URL"])
    services.start_web()
    services.start_worker()
    assert post(services) == 200
    wait_until(lambda: states(connection) == {"completed": 1}, services.log)

    connection.execute(SET_READ_ONLY.format(name=name))
    connection.execute(END_SESSIONS)
    # Until it is connected anew, it is told that there is no connection.
    wait_until(
        lambda: "read-only" in ready(services).json()["checks"].get("database", ""), services.log
    )
    assert ready(services).status_code == 503
    assert post(services) == 503
    doctor = services.run("mailroom", "doctor")
    assert doctor.returncode == 1
    assert "read-only" in doctor.stdout
    # The worker is back as well, and cannot write.
    wait_until(lambda: "ReadOnlySQLTransactionError" in services.log(), services.log)
    wait_until(
        lambda: {"mailroom"} <= {row["application_name"] for row in sessions(connection)},
        services.log,
    )

    connection.execute(RESET.format(name=name))
    wait_until(lambda: post(services) == 200, services.log)
    wait_until(lambda: ready(services).status_code == 200, services.log)
    assert [post(services) for _ in range(5)] == [200] * 5
    wait_until(lambda: set(states(connection)) == {"completed"}, services.log)


def sessions(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute(COUNT_SESSIONS).fetchall()


@pytest.fixture(params=["16", "18", "system"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Of the versions that come along, and of the one that this system has."""
    programs = {"16": programs_of_16, "18": find_binaries, "system": server_programs}
    folder = make_folder_of_servers()
    made = Pair(folder, programs[request.param]())
    yield made
    made.end()
    shutil.rmtree(folder, ignore_errors=True)


def server_programs() -> Path:
    """The folder of a PostgreSQL that can replicate. Debian keeps those of each version apart."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    os_path = os.environ.get("PATH", os.defpath)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([*map(str, folders), os_path]))
        return Path(need("pg_basebackup")).resolve().parent


@pytest.mark.parametrize("pair", ["system"], indirect=True)
def test_a_standby_that_is_promoted_takes_over(pair: Pair, tmp_path: Path) -> None:
    services = Services(pair.url, tmp_path)
    services.environment.update(SOON)
    try:
        assert services.run("mailroom", "migrate").returncode == 0
        services.start_web()
        services.start_worker()
        assert post(services) == 200
        with psycopg.connect(
            pair.standby.url(), autocommit=True, row_factory=psycopg.rows.dict_row
        ) as standby:
            # It has all that was promised before the primary is lost.
            wait_until(lambda: states(standby) == {"completed": 1}, services.log)
            only_standby = services.run("mailroom", "doctor", DATABASE_URL=pair.standby.url())
            assert "standby" in only_standby.stdout
            pair.promote()
            wait_until(lambda: post(services) == 200, services.log)
            assert [post(services) for _ in range(3)] == [200] * 3
            wait_until(lambda: states(standby) == {"completed": 5}, services.log)
            assert ready(services).status_code == 200
            doctor = services.run("mailroom", "doctor")
            assert doctor.returncode == 0, doctor.stdout
    finally:
        services.end()


def start(services: Services) -> Load:
    """A web process, a worker and a load of webhooks."""
    services.environment.update(SOON)
    assert services.run("mailroom", "migrate").returncode == 0
    services.start_web()
    services.start_worker()
    url = services.url + WEBHOOK_PATH
    load = Load([url], 40, lambda: [Webhook(**signed(email()))], random.Random(1))
    load.start()
    return load


def judged(load: Load, standby: Connection, services: Services) -> Verdict:
    """What holds once all that is there has ended."""
    wait_until(lambda: set(states(standby)) == {"completed"}, services.log)
    rows = standby.execute("SELECT id, processing_status FROM incoming_emails").fetchall()
    return judge(load.accepted, {row["id"]: row["processing_status"] for row in rows})


@pytest.mark.long
def test_a_promotion_under_load_loses_nothing_where_replication_is_synchronous(
    pair: Pair, tmp_path: Path
) -> None:
    services = Services(pair.url, tmp_path)
    pair.be_synchronous()
    load = start(services)
    try:
        wait_until(lambda: len(load.accepted) > 50, services.log)
        pair.promote()
        accepted = len(load.accepted)
        wait_until(lambda: len(load.accepted) > accepted + 50, services.log)
        load.stop()
        with psycopg.connect(
            pair.standby.url(), autocommit=True, row_factory=psycopg.rows.dict_row
        ) as standby:
            verdict = judged(load, standby, services)
        assert (verdict.lost, verdict.twice) == (frozenset(), frozenset())
        assert verdict.states == {"completed": len(load.accepted)}
    finally:
        load.give_up()
        services.end()


@pytest.mark.long
@pytest.mark.parametrize("pair", ["system"], indirect=True)
def test_what_an_asynchronous_standby_lacks_is_found_by_its_ticket(
    pair: Pair, tmp_path: Path
) -> None:
    account = Account()
    account.add_webhook("https://mail.example.com/api/v1/zendesk/webhook")
    services = Services(pair.url, tmp_path)
    with api_in_thread(account) as api:
        api.unlimited()
        services.environment |= {
            **api.environment,
            **SOON,
            "MAILROOM_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "MAILROOM_ZENDESK_EXPORTS_PER_MINUTE": "1000",
            "MAILROOM_ZENDESK_SHARE": "1",
        }
        try:
            assert services.run("mailroom", "migrate").returncode == 0
            # From here on it looks.
            assert services.run("mailroom", "gaps").returncode == 0
            services.start_web()
            assert post(services, WEBHOOK_SECRET, body_text="before") == 200
            with psycopg.connect(
                pair.standby.url(), autocommit=True, row_factory=psycopg.rows.dict_row
            ) as standby:
                wait_until(lambda: states(standby) == {"received": 1}, services.log)
                pair.cut()
                lost = {"from_email": "erika@example.com", "body_text": "lost", "body_html": None}
                account.mail("erika@example.com", "lost")
                account.parts["exported_until"] = datetime.now(UTC) + timedelta(minutes=1)
                assert post(services, WEBHOOK_SECRET, ticket_id="1", **lost) == 200
                pair.promote()
                wait_until(lambda: ready(services).status_code == 200, services.log)
                assert states(standby) == {"received": 1}
                found = services.run("mailroom", "gaps")
                assert "1 emails missing" in found.stdout, found.stdout + found.stderr
                rows = standby.execute(
                    "SELECT raw_body_text, origin FROM incoming_emails WHERE from_email = %s",
                    ["erika@example.com"],
                ).fetchall()
                assert rows == [{"raw_body_text": "lost", "origin": "backfill"}]
        finally:
            services.end()
