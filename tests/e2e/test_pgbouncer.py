"""Mailroom behind a real PgBouncer in transaction mode, with few connections to share."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from support import Services, email, free_port, need, signed, wait_until

from app.embedded import EmbeddedPostgres
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
pool_mode = transaction
default_pool_size = {connections}
"""


@pytest.fixture
def behind_pgbouncer(short_folder: Path, tmp_path: Path) -> Iterator[Services]:
    """Services whose database is a PgBouncer before a PostgreSQL of their own."""
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
        CONFIGURATION.format(sockets=sockets, port=port, connections=SERVER_CONNECTIONS)
    )
    with (tmp_path / "pgbouncer.log").open("wb") as log:
        # It does not run as root.
        user = Path(str(sockets)).stat().st_uid if os.geteuid() == 0 else None
        pooler = subprocess.Popen([command, configuration], user=user, stdout=log, stderr=log)
    url = f"postgresql://mailroom@127.0.0.1:{port}/mailroom"
    services = Services(url, tmp_path)
    services.environment |= {"MAILROOM_BEHIND_PGBOUNCER": "true", "BROKER_URL": server.url}
    try:
        wait_until(lambda: _can_connect(url), (tmp_path / "pgbouncer.log").read_text)
        yield services
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

    def states() -> dict[str, int]:
        with psycopg.connect(services.environment["BROKER_URL"]) as connection:
            return dict(
                connection.execute(
                    "SELECT processing_status, count(*) FROM incoming_emails GROUP BY 1"
                ).fetchall()
            )

    wait_until(lambda: states() == {"completed": EMAILS}, services.log)
    assert httpx.get(f"{services.url}/health/ready").status_code == 200
    for command in (["doctor"], ["stuck"], ["quarantine", "list"]):
        ended = services.run("mailroom", *command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    log = services.log()
    assert "prepared statement" not in log
    assert "Traceback" not in log


def test_a_job_engine_behind_pgbouncer_is_refused(services: Services) -> None:
    ended = services.run("mailroom", "worker", MAILROOM_BEHIND_PGBOUNCER="true")
    assert ended.returncode != 0
    assert "BROKER_URL is missing" in ended.stderr
