"""Mailroom behind a real PgBouncer, in session mode, and in transaction mode with few connections
to share."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from migrated_model import lay_down
from support import Services, email, free_port, need, signed, wait_until

from app.database.embedded.server import EmbeddedPostgres
from app.intake.openapi import WEBHOOK_PATH

EMAILS = 300
# Migrations need as many: one for their lock.
SERVER_CONNECTIONS = 2

CONFIGURATION = """
[databases]
* = host={sockets} port=5432 user=mailroom
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {connections}
"""


@pytest.fixture
def behind_pgbouncer(short_folder: Path, tmp_path: Path) -> Iterator[Services]:
    """Services whose database is a PgBouncer in transaction mode, set up as the docs say."""
    with pgbouncer(short_folder, tmp_path, "transaction", SERVER_CONNECTIONS) as (services, url):
        services.environment |= {"MAILROOM_BEHIND_PGBOUNCER": "true", "BROKER_URL": url}
        yield services


@contextlib.contextmanager
def pgbouncer(
    short_folder: Path, tmp_path: Path, mode: str, connections: int
) -> Iterator[tuple[Services, str]]:
    """Services whose database is a PgBouncer before a PostgreSQL of their own, and the URL that
    leads past it."""
    command = need("pgbouncer")
    # Open, for PgBouncer's user.
    short_folder.chmod(0o755)
    server = EmbeddedPostgres(short_folder / "pg")
    server.acquire()
    (short_folder / "pg").chmod(0o711)
    port = free_port()
    sockets = psycopg.conninfo.conninfo_to_dict(server.url)["host"]
    configuration = short_folder / "pgbouncer.ini"
    configuration.write_text(
        CONFIGURATION.format(sockets=sockets, port=port, mode=mode, connections=connections)
    )
    with (tmp_path / "pgbouncer.log").open("wb") as log:
        # It does not run as root.
        user = Path(str(sockets)).stat().st_uid if os.geteuid() == 0 else None
        pooler = subprocess.Popen([command, configuration], user=user, stdout=log, stderr=log)
    url = f"postgresql://mailroom@127.0.0.1:{port}/mailroom"
    services = Services(url, tmp_path)
    try:
        wait_until(lambda: _can_connect(url), (tmp_path / "pgbouncer.log").read_text)
        yield services, server.url
    finally:
        services.end()
        pooler.terminate()
        pooler.wait()
        server.release()


def _can_connect(url: str) -> bool:
    try:
        psycopg.connect(url, prepare_threshold=None).close()
    except psycopg.OperationalError:
        return False
    return True


async def post_all(url: str, deliveries: list[dict[str, object]]) -> list[int]:
    async with httpx.AsyncClient() as client:
        answers = await asyncio.gather(
            *(client.post(f"{url}{WEBHOOK_PATH}", **delivery) for delivery in deliveries)
        )
    return [answer.status_code for answer in answers]


def test_everything_works_behind_pgbouncer_in_transaction_mode(behind_pgbouncer: Services) -> None:
    services = behind_pgbouncer
    migrated = services.run("mailroom", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert services.run("piccolo", "migrations", "forwards", "all").returncode == 0
    services.start_web()
    for _ in range(2):
        services.start_worker()
    deliveries = [signed(email()) for _ in range(EMAILS)]
    answers = asyncio.run(post_all(services.url, [*deliveries, *deliveries[: EMAILS // 3]]))
    assert answers == [200] * len(answers)

    direct = services.environment["BROKER_URL"]
    wait_until(lambda: states(direct) == {"completed": EMAILS}, services.log)
    assert httpx.get(f"{services.url}/health/ready").status_code == 200
    for command in (["doctor"], ["stuck"], ["quarantine", "list"]):
        ended = services.run("mailroom", *command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    log = services.log()
    assert "prepared statement" not in log
    assert "Traceback" not in log


def states(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        return dict(
            connection.execute(
                "SELECT processing_status, count(*) FROM incoming_emails GROUP BY 1"
            ).fetchall()
        )


def test_pgbouncer_in_session_mode_needs_nothing(short_folder: Path, tmp_path: Path) -> None:
    with pgbouncer(short_folder, tmp_path, "session", 40) as (services, direct):
        assert services.run("mailroom", "migrate").returncode == 0
        services.start_web()
        services.start_worker()
        answers = asyncio.run(post_all(services.url, [signed(email()) for _ in range(20)]))
        assert answers == [200] * 20
        wait_until(lambda: states(direct) == {"completed": 20}, services.log)
        doctor = services.run("mailroom", "doctor")
        assert doctor.returncode == 0, doctor.stdout
        assert "through a pooler" in doctor.stdout
        assert "broker_away" not in services.log()


def test_doctor_names_the_setting_that_a_pooler_in_transaction_mode_needs(
    short_folder: Path, model: Path, tmp_path: Path
) -> None:
    lay_down(model, short_folder / "pg")
    with pgbouncer(short_folder, tmp_path, "transaction", SERVER_CONNECTIONS) as (services, direct):
        forgotten = services.run("mailroom", "doctor")
        assert forgotten.returncode == 1
        assert "MAILROOM_BEHIND_PGBOUNCER=true" in forgotten.stdout
        through = {"BROKER_URL": services.environment["DATABASE_URL"]}
        half = services.run("mailroom", "doctor", MAILROOM_BEHIND_PGBOUNCER="true", **through)
        assert half.returncode == 1
        assert "let BROKER_URL lead past it" in half.stdout
        past = {"BROKER_URL": direct}
        whole = services.run("mailroom", "doctor", MAILROOM_BEHIND_PGBOUNCER="true", **past)
        assert whole.returncode == 0, whole.stdout


def test_a_job_engine_behind_pgbouncer_is_refused(services: Services) -> None:
    ended = services.run("mailroom", "worker", MAILROOM_BEHIND_PGBOUNCER="true")
    assert ended.returncode != 0
    assert "BROKER_URL is missing" in ended.stderr
