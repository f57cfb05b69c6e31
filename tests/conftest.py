"""Every session has a PostgreSQL of its own, and every test a database of its own.

The environment is emptied of settings before anything of Mailroom is imported, so what a developer
has set does not reach the tests.
"""

import compileall
import functools
import gc
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

for name in [*os.environ]:
    if name.startswith("MAILROOM_") or name in ("DATABASE_URL", "BROKER_URL", "PICCOLO_CONF"):
        del os.environ[name]

# Whatever a machine's environment says: or all tests are compiled anew in each process of a run.
sys.dont_write_bytecode = False

import asyncpg  # noqa: E402
import httpx  # noqa: E402
import hypothesis  # noqa: E402
import psycopg  # noqa: E402
import pytest  # noqa: E402
import structlog  # noqa: E402
from databases import Databases  # noqa: E402
from fake_zendesk import FakeZendesk, running_zendesk  # noqa: E402
from leftovers import Leftovers, make_folder  # noqa: E402
from migrated_model import (  # noqa: E402
    TEMPLATE,
    cache_folder,
    copy,
    make_key,
    make_model,
    migrate,
    provide,
)
from servers import running_server  # noqa: E402
from support import FORK_SERVER, WAIT_SECONDS, Services, reach  # noqa: E402

from app.database.embedded.server import EmbeddedPostgres  # noqa: E402
from app.text.reader import end_readers  # noqa: E402

RUN_FOLDER = make_folder()
os.environ["MAILROOM_HOME"] = str(RUN_FOLDER / f"home-{os.getpid()}")

# How fast the machine is, no test depends on: the defaults of these give up after milliseconds
# or a few seconds.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
hypothesis.settings.register_profile("quick", hypothesis.settings(), max_examples=15)
for kind in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, kind, WAIT_SECONDS)
# Each client reads all authorities of the system anew, 55 ms of processor time: most of what it
# costs to ask a server every few milliseconds whether it answers by now.
httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)

PROJECT = Path(__file__).parent.parent
# Tests with one of these start servers or commands.
START_PROCESSES = {"services", "short_folder", "empty_database_url"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storm-minutes", type=float, help="length of the storms over all brokers")
    parser.addoption("--storm-rate", type=float, default=150.0, help="webhooks a second")
    parser.addoption("--backlog", type=int, default=2_000, help="emails that wait for workers")
    parser.addoption("--gap-emails", type=int, default=2_000, help="of an account with gaps")
    parser.addoption("--backfill-tickets", type=int, default=300, help="of the past")
    parser.addoption("--upgrade-rows", type=int, default=2_000, help="emails before an upgrade")
    parser.addoption("--desk-emails", type=int, default=1_000, help="of an operator's three jobs")
    parser.addoption("--bulk-emails", type=int, default=2_000, help="of one bulk action")
    parser.addoption("--histories", type=int, default=100, help="of the model of the transitions")
    parser.addoption("--image", help="the name of a built image, to be run with podman")
    parser.addoption("--compose", action="store_true", help="run what compose.yaml starts")
    parser.addoption("--screenshots", type=Path, help="folder for the pictures of the docs")
    parser.addoption("--storm-seed", type=int, help="the seed of an earlier storm")
    parser.addoption(
        "--postgres", type=Path, help="programs of another PostgreSQL, for most databases of tests"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What storms and floods measured, and the seeds by which they can be had again."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if report.when == "call":
                    terminalreporter.write_line(f"{name}: {value}")


def is_quick(config: pytest.Config) -> bool:
    """Whether the quick set is run, and nothing else."""
    expression: str = config.option.markexpr
    return expression == "quick"


def pytest_configure(config: pytest.Config) -> None:
    if is_quick(config):
        hypothesis.settings.load_profile("quick")
    config.addinivalue_line("markers", "quick: starts hardly a process; the set for the inner loop")
    config.addinivalue_line("markers", "long: takes long, or tells seldom; not for the inner loop")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Leftovers())
        # Once, or where nothing may write bytecode each of a thousand processes does it for itself.
        for folder in ("app", "piccolo_migrations"):
            compileall.compile_dir(PROJECT / folder, quiet=2)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Nothing of these is quick, and they import most of all.
    return True if is_quick(config) and collection_path.name in ("e2e", "faults") else None


def pytest_collection_finish() -> None:
    # All tests and what they import stays to the end: no collection has to go through it.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    # The longest first, or the end of the run waits for one of them.
    items.sort(key=lambda item: item.path.parent.name != "faults")
    for item in items:
        is_cheap = item.path.parent.name in ("unit", "integration")
        starts_one = "subprocess" in item.function.__code__.co_names
        if item.get_closest_marker("long") is not None:
            continue
        if is_cheap and not starts_one and not START_PROCESSES.intersection(item.fixturenames):
            item.add_marker("quick")


@pytest.fixture(scope="session", autouse=True)
def helpers() -> Iterator[None]:
    """Ends the processes that read long bodies, and the one that forks."""
    yield
    end_readers()
    FORK_SERVER.end()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands that a test calls in this process set up its logging, for their own output."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**configured)


def make_short_folder() -> Path:
    """A folder in which the path of a server's socket is not too long, as in pytest's own."""
    return Path(tempfile.mkdtemp(dir=RUN_FOLDER, prefix=""))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path, for a server of the test's own."""
    folder = make_short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def model(pytestconfig: pytest.Config) -> Path:
    """The home of a PostgreSQL that does not run, with a migrated database: to be copied."""
    home = RUN_FOLDER / "model"
    provide(home, cache_folder(pytestconfig), make_key(), make_model)
    return home


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """Makes databases on the PostgreSQL of this session."""
    if programs := request.config.getoption("--postgres"):
        with running_server(programs) as url:
            made = migrate(url)
            made.use_template(made.url_of(TEMPLATE))
            yield made
        return
    model: Path = request.getfixturevalue("model")
    home = make_short_folder()
    copy(model / "postgres", home / "postgres")
    server = EmbeddedPostgres(home)
    server.acquire()
    made = Databases(server.url)
    made.use_template(made.url_of(TEMPLATE))
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


@pytest.fixture(scope="module")
def web_settings() -> dict[str, str]:
    """Of the web process that the tests of a module share."""
    return {}


@pytest.fixture(scope="module")
def shared_web(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory, web_settings: dict[str, str]
) -> Iterator[Services]:
    """A web process for the tests of a module, on a database that they use one after the other."""
    url = databases.create(migrated=True)
    running = Services(url, tmp_path_factory.mktemp("web"))
    running.start_web(**web_settings)
    yield running
    running.end()
    databases.drop(url)


@pytest.fixture
def shared_database_url(databases: Databases, shared_web: Services) -> str:
    """The database of that web process, emptied. A module that shares a web process has it for its
    `database_url`."""
    url = shared_web.environment["DATABASE_URL"]
    databases.empty(url)
    return url


@pytest.fixture
def web(services: Services, shared_web: Services) -> Services:
    """The test's services, of which the web process runs already."""
    services.environment["MAILROOM_PORT"] = shared_web.environment["MAILROOM_PORT"]
    services.log_path = shared_web.log_path
    services.log_path.write_bytes(b"")
    return services


@pytest.fixture
async def zendesk(tmp_path: Path) -> AsyncIterator[FakeZendesk]:
    """A fake account that gives out files, over TLS."""
    async with running_zendesk(tmp_path) as zendesk:
        yield zendesk


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
