"""What several tests need: databases, running processes, signed webhooks."""

import contextlib
import fcntl
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pika
import psycopg
import pytest
import redis
from databases import Databases
from fork_server import ROUNDS, Forked, ForkServer, can_fork
from piccolo.apps.user.tables import BaseUser

from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from app.setting_groups.secrets import parse_secrets
from app.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Process: TypeAlias = "subprocess.Popen[bytes] | Forked"

PROJECT = Path(__file__).parent.parent
SECRET = "a secret of the tests which is long"
# What production asks for besides a database.
PRODUCTION = {"MAILROOM_ENV": "production", "MAILROOM_API_TOKEN": "token-of-the-production-api"}
PASSWORD = "correct horse battery staple"
WAIT_SECONDS = 120.0
# Between two looks at what a test waits for: a look may be a request, or a process.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.1
# Of a hash of a password, where what it costs by design does not matter: else 600,000.
FEW_ROUNDS = 1_000

FORK_SERVER = ForkServer()
# More than one test asks for; it is listened at the earlier ones by now, or they are free again.
_ports_in_use: deque[TextIO] = deque(maxlen=50)


def make_settings(**values: Any) -> Settings:
    """Settings with the tests' secret and these values, from no file."""
    return Settings(
        _env_file=None,
        **{"webhook_secrets": parse_secrets(SECRET), "api_token": "token", **values},
    )


@contextlib.contextmanager
def shut_out(database_url: str) -> Iterator[None]:
    """Nobody is connected to a database, nor can connect, for the time of this block."""
    name = Databases.name_of(database_url)
    with psycopg.connect(
        database_url.replace(f"/{name}?", "/mailroom?"), autocommit=True
    ) as elsewhere:
        elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        elsewhere.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            yield
        finally:
            elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


class Services:
    """Real processes of Mailroom, each with its log."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self.log_path = folder / "log"
        self.queue = f"test-{uuid4().hex}"
        self.environment = {
            "DATABASE_URL": database_url,
            "MAILROOM_HOME": str(folder / "home"),
            "MAILROOM_QUEUE": self.queue,
            "MAILROOM_WEBHOOK_SECRETS": SECRET,
            "MAILROOM_API_TOKEN": "token",
            "MAILROOM_MIN_BACKOFF_SECONDS": "0.1",
            "MAILROOM_MAX_BACKOFF_SECONDS": "0.3",
            # On a machine under load an answer may take longer than Zendesk would wait.
            "MAILROOM_INTAKE_DEADLINE_SECONDS": "30",
            "MAILROOM_PORT": str(free_port()),
            ROUNDS: str(FEW_ROUNDS),
        }
        self.processes: list[Process] = []

    @property
    def url(self) -> str:
        """Where the web process answers."""
        return f"http://127.0.0.1:{self.environment['MAILROOM_PORT']}"

    def start(self, *command: str, **environment: str) -> Process:
        """Start a command of this Python's environment, such as "mailroom", "web". What it prints
        goes to `log`."""
        with self.log_path.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            process = start_script(
                *command,
                cwd=self.folder,
                env={**os.environ, **self.environment, **environment},
                files=(nothing, log, log),
            )
        self.processes.append(process)
        return process

    def run(
        self, *command: str, stdin: bytes = b"", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, and keep what it prints."""
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin)
            given.seek(0)
            process = start_script(
                *command,
                cwd=self.folder,
                env={**os.environ, **self.environment, **environment},
                files=(given, out, err),
            )
            try:
                status = process.wait(300)
            except subprocess.TimeoutExpired:
                self.kill_group(process)
                raise
            printed = []
            for file in (out, err):
                file.seek(0)
                printed.append(file.read().decode())
            return subprocess.CompletedProcess(command, status, *printed)

    def start_web(self, **environment: str) -> Process:
        """Start the web process and wait until it answers."""
        process = self.start("mailroom", "web", **environment)
        wait_until(lambda: process.poll() is not None or reach(self.url), self.log)
        if process.poll() is None:
            live = f"{self.url}/health/live"
            wait_until(lambda: process.poll() is not None or is_success(live), self.log)
        if process.poll() is not None:
            raise AssertionError(self.log())
        return process

    def start_worker(self, *, concurrency: int = 4, **environment: str) -> Process:
        """Start a worker by Dramatiq's own command."""
        return self.start(
            *("dramatiq", "app.worker", "--processes", "1"),
            **{"MAILROOM_WORKER_CONCURRENCY": str(concurrency), **environment},
        )

    def write_handler(self, body: str) -> None:
        """Have the workers use a handler with this source; it is called `handle`."""
        (self.folder / "my_handler.py").write_text(body)
        self.environment["MAILROOM_HANDLER"] = "my_handler:handle"
        inherited = os.environ.get("PYTHONPATH", "")
        self.environment["PYTHONPATH"] = f"{self.folder}{os.pathsep}{inherited}"

    def log(self) -> str:
        """What the processes have printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def kill_group(self, process: Process) -> None:
        """SIGKILL to a process and its descendants that stayed in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            self.kill_group(process)
        delete_queue(self.environment.get("BROKER_URL", ""), self.queue)


def delete_queue(broker_url: str, queue: str) -> None:
    """Leave nothing of a test's queue on a broker that is not the test's own."""
    if broker_url.startswith("redis"):
        with contextlib.closing(redis.Redis.from_url(broker_url)) as client:
            for key in client.scan_iter(f"{queue}:*"):
                client.delete(key)
    elif broker_url.startswith("amqp") and reach(broker_url):
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as server:
            for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
                server.channel().queue_delete(name)


def create_token(services: Services, name: str, *options: str) -> dict[str, str]:
    """The header with a token that `mailroom token create` made."""
    made = services.run("mailroom", "token", "create", name, *options)
    assert made.returncode == 0, made.stderr
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


@functools.cache
def hash_password() -> str:
    """PASSWORD as Piccolo stores it."""
    return BaseUser.hash_password(PASSWORD, iterations=FEW_ROUNDS)


def create_operators(services: Services) -> None:
    """The operator olga, and ada, who is a superuser too."""
    with psycopg.connect(services.environment["DATABASE_URL"]) as connection:
        for name, is_superuser in (("olga", False), ("ada", True)):
            connection.execute(
                "INSERT INTO piccolo_user (username, password, email, active, admin, superuser)"
                " VALUES (%s, %s, %s, true, true, %s)",
                [name, hash_password(), f"{name}@example.com", is_superuser],
            )


def sign_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    """Sign in to Piccolo Admin as its page does."""
    client.get("/admin/public/meta/").raise_for_status()
    client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
    login = {"username": name, "password": password}
    return client.post("/admin/public/login/", json=login)


def enter(client: httpx.Client, services: Services, name: str = "olga") -> None:
    """Have a client sent with the session of an operator, for whoever tests something else than
    signing in, which takes a while by design."""
    client.cookies.set("id", start_session(services, name))


def enter_page(page: "Page", services: Services, name: str = "olga") -> None:
    """The same for a browser's page."""
    session = start_session(services, name)
    page.context.add_cookies([{"name": "id", "value": session, "url": services.url}])


def start_session(services: Services, name: str) -> str:
    """A session as Piccolo stores one. Returns what its cookie holds."""
    token = uuid4().hex
    with psycopg.connect(services.environment["DATABASE_URL"]) as connection:
        made = connection.execute(
            "INSERT INTO sessions (token, user_id, expiry_date, max_expiry_date) SELECT %s, id,"
            " now() + interval '1 hour', now() + interval '7 days' FROM piccolo_user"
            " WHERE username = %s",
            [token, name],
        )
    assert made.rowcount == 1
    return token


@contextlib.contextmanager
def open_page(browser: "Browser", base_url: str, **options: Any) -> Iterator["Page"]:
    """A page of a browser that nobody has signed in with. It must meet nothing that the security
    headers forbid."""
    context = browser.new_context(
        base_url=base_url, viewport={"width": 1200, "height": 900}, **options
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_SECONDS * 1000)
    refused: list[str] = []
    page.on("console", lambda line: refused.append(line.text) if "Content Sec" in line.text else 0)
    page.on("pageerror", lambda error: refused.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert refused == []


def sign_in_page(page: "Page", name: str = "olga") -> None:
    """Sign in as a person does, who is led to the login from Piccolo Admin and back."""
    page.goto("./admin/")
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    # Whatever the button is called in the language of the page.
    page.locator("input[name=password]").press("Enter")
    page.locator(".sidebar").first.wait_for()


def need(program: str, *others: str) -> str:
    """The path of the first of these programs that is installed.

    Without any the test is skipped. In continuous integration it fails, which must not pass
    without having run it.
    """
    # Debian's servers are in a folder that is not on everybody's PATH.
    folders = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"
    for name in (program, *others):
        if found := shutil.which(name, path=folders):
            return found
    missing = f"program missing: {' or '.join((program, *others))} is not on the PATH"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def command_line(*command: str) -> list[str]:
    """A console script of this Python's environment with its arguments."""
    return [str(Path(sys.executable).parent / command[0]), *command[1:]]


def start_script(
    *command: str, cwd: Path, env: dict[str, str], files: tuple[IO[bytes], IO[bytes], IO[bytes]]
) -> Process:
    """Start a console script with a session of its own: by the fork server, where it can.

    Args:
        files: its standard input, output and error output.
    """
    arguments = command_line(*command)
    # Python itself is no script.
    if command[0] != "python" and can_fork(env):
        return FORK_SERVER.start(arguments, cwd=cwd, env=env, files=files)
    stdin, stdout, stderr = files
    return subprocess.Popen(
        arguments,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def free_port() -> int:
    """A port that is free until the one who asked listens there.

    The kernel gives it to no connection, since it is below those that it chooses from; and of the
    runs of these tests one at a time has it. The nine after it are free, too: workers show their
    metrics at the first free port from one on.
    """
    folder = Path(tempfile.gettempdir()) / "mailroom-ports-of-tests"
    folder.mkdir(exist_ok=True)
    while True:
        port = random.randrange(15_000, 32_000, 10)
        lock = (folder / str(port)).open("w")
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.bind(("127.0.0.1", port))
            _ports_in_use.append(lock)
            return port
        lock.close()


def reach(url: str) -> bool:
    """Does anything listen at this URL?"""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except OSError:
        return False
    return True


def is_success(url: str) -> bool:
    """Does a server answer a GET of this URL with success?"""
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


def wait_until(
    is_done: Callable[[], object],
    explain: Callable[[], str] = lambda: "",
    *,
    seconds: float = WAIT_SECONDS,
    every: float = 0.0,
) -> None:
    """Wait for a condition; fail with an explanation if it does not come.

    Args:
        every: seconds between two looks at it, else few at first and more by and by.
    """
    deadline = time.monotonic() + seconds
    pause = every or FIRST_PAUSE_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} seconds in vain. {explain()}")
        time.sleep(pause)
        pause = every or min(pause * 1.3, LONGEST_PAUSE_SECONDS)


def email(**fields: Any) -> dict[str, Any]:
    """A payload as a trigger posts it; each call makes another one."""
    number = uuid4().hex
    return {
        "ticket_id": "35436",
        "from_email": f"erika-{number}@example.com",
        "from_name": "Erika Mustermann",
        "subject": "Wo bleibt mein Päckchen? 📦",
        "body_html": "<p>Guten Tag,<br>wo ist mein <b>Päckchen</b>?</p>",
        "webhook_id": number,
        **fields,
    }


def events(file_url: str | None = None) -> list[dict[str, Any]]:
    """An end user's answer by mail, and its file, as an event subscription sends them; each call
    makes others."""
    number = uuid4().hex
    detail = {
        "id": int(number[:12], 16),
        "via": {"channel": "mail"},
        "requester_id": "5870",
        "tags": None,
    }
    url = file_url or f"https://example.com/{number}/rechnung.pdf"
    file = {"id": number, "content_url": url}
    author = {"id": "5870", "is_staff": False, "name": "Erika Mustermann"}
    return [
        {
            "type": f"zen:event-type:ticket.{name}",
            "account_id": 1,
            "id": f"{name} {number}",
            "detail": detail,
            "event": {"comment": {"id": number, **comment}},
        }
        for name, comment in (
            ("comment_added", {"body": "Wo bleibt mein Päckchen?", "author": author}),
            ("attachment_linked_to_comment", {"attachment": file}),
        )
    ]


def signed(
    payload: dict[str, Any] | bytes, *, secret: str = SECRET, at: datetime | None = None
) -> dict[str, Any]:
    """Arguments for httpx's `post`: the body and the headers that Zendesk sends with it."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    timestamp = (at or datetime.now(UTC)).isoformat()
    return {
        "content": body,
        "headers": {
            "content-type": "application/json",
            SIGNATURE_HEADER: sign(secret, timestamp, body),
            TIMESTAMP_HEADER: timestamp,
            INVOCATION_HEADER: uuid4().hex,
        },
    }


@contextlib.contextmanager
def changed_environment(**values: str) -> Iterator[None]:
    """Environment variables for the time of a block."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
