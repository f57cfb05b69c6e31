"""A database that fails over: sessions that stay read-only while new ones can write, and a real
standby that is promoted."""

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from databases import Databases
from support import Services, email, free_port, need, signed, wait_until

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


def post(services: Services) -> int:
    return httpx.post(services.url + WEBHOOK_PATH, **signed(email()), timeout=30).status_code


def ready(services: Services) -> httpx.Response:
    return httpx.get(f"{services.url}/health/ready", timeout=30)


def states(connection: Connection) -> dict[str, int]:
    rows = connection.execute("SELECT processing_status FROM incoming_emails").fetchall()
    return dict(Counter(str(row["processing_status"]) for row in rows))


def test_sessions_that_stay_read_only_are_replaced(
    services: Services, connection: Connection, databases: Databases, broker_url: str
) -> None:
    services.environment["BROKER_URL"] = broker_url
    name = databases.name_of(services.environment["DATABASE_URL"])
    services.start_web()
    services.start_worker()
    assert post(services) == 200
    wait_until(lambda: states(connection) == {"completed": 1}, services.log)

    connection.execute(SET_READ_ONLY.format(name=name))
    connection.execute(END_SESSIONS)
    wait_until(lambda: ready(services).status_code == 503, services.log)
    assert "read-only" in ready(services).json()["checks"]["database"]
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


class Replicas:
    """A primary with a streaming standby, made for one test and run as an ordinary user."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._user = "nobody" if os.geteuid() == 0 else None
        self.ports = (free_port(), free_port())
        self._start_primary()
        self._start_standby()

    @property
    def url(self) -> str:
        """Of both, for whoever wants the one that can write."""
        first, second = self.ports
        return f"postgresql://mailroom@127.0.0.1:{first},127.0.0.1:{second}/mailroom"

    def url_of(self, number: int) -> str:
        return f"postgresql://mailroom@127.0.0.1:{self.ports[number]}/mailroom"

    def promote(self) -> None:
        """Cut off the primary, and let the standby take over."""
        self._control(0, "stop", "--mode=immediate")
        self._control(1, "promote")

    def end(self) -> None:
        for number in (0, 1):
            self._run("pg_ctl", "stop", "-m", "immediate", "-D", self._data(number), check=False)

    def _data(self, number: int) -> str:
        return str(self._folder / f"data-{number}")

    def _start_primary(self) -> None:
        self._run("initdb", "-D", self._data(0), "-U", "mailroom", "-A", "trust", "-E", "UTF8")
        self._start(0)
        with psycopg.connect(
            f"postgresql://mailroom@127.0.0.1:{self.ports[0]}/postgres", autocommit=True
        ) as connection:
            connection.execute("CREATE DATABASE mailroom")

    def _start_standby(self) -> None:
        primary = f"host=127.0.0.1 port={self.ports[0]} user=mailroom"
        self._run("pg_basebackup", "-D", self._data(1), "-d", primary, "-R", "-c", "fast")
        self._start(1)

    def _start(self, number: int) -> None:
        options = (
            f"-p {self.ports[number]} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' "
            "-c shared_buffers=16MB -c max_connections=60 -c wal_level=replica"
        )
        self._control(number, "start", "-o", options, "-l", f"{self._data(number)}.log")

    def _control(self, number: int, *command: str) -> None:
        self._run("pg_ctl", *command, "-w", "-t", "120", "-D", self._data(number))

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user,
            cwd="/",
            check=False,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        assert not check or done.returncode == 0, done.stdout


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    folder = Path(tempfile.mkdtemp(prefix="rep-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    made = Replicas(folder, server_programs())
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


def test_a_standby_that_is_promoted_takes_over(replicas: Replicas, tmp_path: Path) -> None:
    services = Services(replicas.url, tmp_path)
    try:
        assert services.run("mailroom", "migrate").returncode == 0
        services.start_web()
        services.start_worker()
        assert post(services) == 200
        with psycopg.connect(
            replicas.url_of(1), autocommit=True, row_factory=psycopg.rows.dict_row
        ) as standby:
            # It has all that was promised before the primary is lost.
            wait_until(lambda: states(standby) == {"completed": 1}, services.log)
            only_standby = services.run("mailroom", "doctor", DATABASE_URL=replicas.url_of(1))
            assert "standby" in only_standby.stdout
            replicas.promote()
            wait_until(lambda: post(services) == 200, services.log)
            assert [post(services) for _ in range(3)] == [200] * 3
            wait_until(lambda: states(standby) == {"completed": 5}, services.log)
            assert ready(services).status_code == 200
            doctor = services.run("mailroom", "doctor")
            assert doctor.returncode == 0, doctor.stdout
    finally:
        services.end()
