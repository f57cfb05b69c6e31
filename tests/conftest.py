"""Every session has a PostgreSQL of its own, and every test a database of its own.

The environment is emptied of settings before anything of Mailroom is imported, so what a developer
has set does not reach the tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

# Short, because the path of the server's socket may not be long.
HOME = Path(tempfile.mkdtemp(prefix="mr-"))
for name in [*os.environ]:
    if name.startswith("MAILROOM_") or name in ("DATABASE_URL", "BROKER_URL", "PICCOLO_CONF"):
        del os.environ[name]
os.environ["MAILROOM_HOME"] = str(HOME / "home")

import asyncpg  # noqa: E402
import psycopg  # noqa: E402
import pytest  # noqa: E402
from support import Databases, Services, reach  # noqa: E402

from app.embedded import EmbeddedPostgres  # noqa: E402

PROJECT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storm-minutes", type=float, help="length of the storms over all brokers")
    parser.addoption("--storm-rate", type=float, default=150.0, help="webhooks a second")
    parser.addoption("--backlog", type=int, default=2_000, help="emails that wait for workers")
    parser.addoption("--screenshots", type=Path, help="folder for the README's pictures")
    parser.addoption("--storm-seed", type=int, help="the seed of an earlier storm")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What storms and floods measured, and the seeds by which they can be had again."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if report.when == "call":
                    terminalreporter.write_line(f"{name}: {value}")


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Makes databases on the PostgreSQL of this session."""
    server = EmbeddedPostgres(HOME / "pg")
    server.acquire()
    made = Databases(server.url)
    template_url = made.create()
    subprocess.run(
        [sys.executable, "-m", "piccolo.main", "migrations", "forwards", "all"],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": template_url},
        check=True,
        capture_output=True,
    )
    made.template = made.name_of(template_url)
    yield made
    server.release()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A migrated database of the test's own."""
    url = databases.create(migrated=True)
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A database of the test's own in which nothing has run yet."""
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """Connections to the test's migrated database."""
    async with asyncpg.create_pool(database_url, min_size=0, max_size=10) as pool:
        yield pool


@pytest.fixture
def connection(database_url: str) -> Iterator["psycopg.Connection[dict[str, object]]"]:
    """A synchronous connection to the test's migrated database, in autocommit."""
    with psycopg.connect(
        database_url, autocommit=True, row_factory=psycopg.rows.dict_row
    ) as connection:
        yield connection


@pytest.fixture
def services(database_url: str, tmp_path: Path) -> Iterator[Services]:
    """Starts real processes of Mailroom on the test's database, and ends them after it."""
    running = Services(database_url, tmp_path)
    yield running
    running.end()


@pytest.fixture(params=["postgresql", "redis", "amqp"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each of the brokers; "" is the test's own database."""
    if request.param == "postgresql":
        return ""
    url: str = {
        "redis": "redis://127.0.0.1:6379/0",
        "amqp": "amqp://guest:guest@127.0.0.1:5672/",
    }[request.param]
    if not reach(url):
        missing = f"broker missing: nothing listens at {url.rpartition('@')[2]}"
        # Continuous integration has both, and must not pass without them.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return url
