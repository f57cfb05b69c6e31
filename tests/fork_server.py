"""Starts console scripts in processes that have most of what they import loaded already.

Most of what a process of Mailroom costs is what it imports. The process of this file imports once
the libraries, and of Mailroom the modules that read no settings meanwhile, and forks for each
script. The engine, which all tables hold, reads them when it is first used. What is forked is a
process like another: a session, arguments, an environment, a folder and files of its own. It runs
the script from its first line, and imports itself all that depends on its settings.
"""

import asyncio
import atexit
import contextlib
import gc
import importlib
import itertools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from piccolo.apps.user.tables import BaseUser

# What web, worker and commands import of others, in the end.
LIBRARIES = (
    *("aioclamd", "aiosmtplib", "asyncpg", "attrs", "babel.dates", "click", "dateutil.parser"),
    *("dateutil.tz", "fastapi_swagger", "filetype", "ftfy"),
    *("dramatiq.cli", "dramatiq.brokers.rabbitmq", "dramatiq.brokers.redis", "dramatiq_postgres"),
    *("httpcore2", "httptools", "httpx2", "jinja2.ext", "liquid", "liquid.extra", "litestar"),
    *("litestar.contrib.jinja", "litestar.plugins.attrs", "litestar.plugins.jinja"),
    *("litestar.plugins.pydantic", "msgspec", "nh3", "obstore"),
    *("litestar.openapi.plugins", "litestar.static_files", "piccolo.engine.postgres", "pika"),
    *("piccolo.apps.migrations.commands.backwards", "piccolo.apps.migrations.commands.forwards"),
    *("piccolo.apps.user.piccolo_app", "piccolo_admin.endpoints"),
    *("piccolo_api.session_auth.piccolo_app", "prometheus_client.multiprocess", "psutil"),
    *("psycopg_pool", "pydantic_settings", "redis.asyncio", "standardwebhooks", "structlog"),
    *("truststore", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "uvloop"),
)
# What Python reads from the environment when it starts, and libraries when they are imported.
READ_BEFORE = (
    *("PYTHON", "LC_", "LANG", "OTEL_PROPAGATORS", "OTEL_PYTHON_", "PROMETHEUS_", "PYDANTIC_"),
    "dramatiq_",
)
# A variable for what is forked: of how many rounds its hashes of passwords are. Where it is not set
# they are as many as elsewhere.
ROUNDS = "TESTS_PASSWORD_ROUNDS"
# A request holds a whole environment.
MOST_BYTES = 1 << 17
PROJECT = Path(__file__).parent.parent


class Forked:
    """A process that was forked, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, arguments: list[str], process_id: int, ended: int) -> None:
        self.args = arguments
        self.pid = process_id
        self.returncode: int | None = None
        self._ended = os.fdopen(ended)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if select.select([self._ended], [], [], timeout)[0]:
            with self._lock:
                if self.returncode is None:
                    # A server that has vanished says nothing.
                    self.returncode = int(self._ended.read() or -signal.SIGKILL)
        return self.returncode


class ForkServer:
    """The server as its users see it. It starts with the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        command: list[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        files: tuple[IO[bytes], IO[bytes], IO[bytes]],
    ) -> Forked:
        """Run a console script.

        Args:
            command: the script's path, and its arguments.
            files: its standard input, output and error output.
        """
        request = json.dumps({"command": command, "cwd": str(cwd), "env": dict(env)}).encode()
        ended, tells = os.pipe()
        with self._lock:
            if self._requests is None:
                self._requests = self._start_server()
            numbers = [*(file.fileno() for file in files), tells]
            socket.send_fds(self._requests, [request], numbers)
            os.close(tells)
            return Forked(command, int(self._requests.recv(MOST_BYTES)), ended)

    def end(self) -> None:
        """Leave what was forked to itself."""
        if self._requests is not None and self._process is not None:
            self._requests.close()
            self._process.wait()

    def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        environment = {**os.environ}
        environment.pop("PYTHONPATH", None)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return ours


def can_fork(environment: Mapping[str, str]) -> bool:
    """Is what is read and imported before the fork the same in this environment?"""
    is_same = all(
        environment.get(name) == os.environ.get(name)
        for name in {*environment, *os.environ}
        if name.startswith(READ_BEFORE) and name != "PYTHONPATH"
    )
    inherited = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    # An older version comes from a folder of its own.
    found = next((f for f in (*inherited, *sys.path) if Path(f, "app", "__init__.py").exists()), "")
    return is_same and Path(found).resolve() == PROJECT


class SettingsReadError(Exception):
    """A module reads the settings while it is imported."""


def import_engine() -> None:
    """Import the engine that every table holds, which reads the settings while it is imported. Here
    it is made of others and emptied, and is made anew where a fork first uses it."""
    from app import settings

    elsewhere = settings.Settings.model_construct(database_url="postgresql://127.0.0.1/nowhere")
    load_settings, settings._get = settings._get, lambda: elsewhere
    engine = importlib.import_module("app.database.engine")
    settings._get = load_settings
    settings.get_settings.cache_clear()

    class Unread(engine.MailroomEngine):  # type: ignore[name-defined,misc]
        def __getattr__(self, name: str) -> Any:
            read = settings.get_settings()
            self.__class__ = engine.MailroomEngine
            self.__init__(read)  # type: ignore[misc]
            return getattr(self, name)

    made = engine.DB
    made.__class__ = Unread
    vars(made).clear()
    for name in itertools.chain.from_iterable(
        vars(base).get("__slots__", ()) for base in Unread.__mro__
    ):
        with contextlib.suppress(AttributeError):
            delattr(made, name)


def import_mailroom() -> None:
    """Import the modules of Mailroom that read no settings meanwhile: they are the same whatever
    the environment of a process says."""
    from app import settings

    def refuse(*_: object, **__: object) -> bool:
        raise SettingsReadError

    import_engine()
    settings.Settings.__init__ = refuse
    are_traces_wanted, settings.are_traces_wanted = settings.are_traces_wanted, refuse
    for path in sorted((PROJECT / "app").rglob("*.py")):
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        with contextlib.suppress(SettingsReadError):
            importlib.import_module(name.removesuffix(".__init__"))
    settings.are_traces_wanted = are_traces_wanted
    del settings.Settings.__init__


def serve(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each request. Returns what a fork has to run, and its files."""
    running: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in running:
                process_id, tells = running.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                status = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    os.write(tells, str(status).encode())
                os.close(tells)
                continue
            request, files, *_ = socket.recv_fds(requests, MOST_BYTES, 4)
            if not request:
                sys.exit()
            process_id = os.fork()
            if not process_id:
                # Whoever hears of it may end its group at once.
                os.setsid()
                requests.send(str(os.getpid()).encode())
                for number in (requests.detach(), *running, *(t for _, t in running.values())):
                    os.close(number)
                return json.loads(request), files
            for file in files[:3]:
                os.close(file)
            running[descriptor := os.pidfd_open(process_id)] = process_id, files[3]
            poll.register(descriptor, select.POLLIN)


def run(script: str) -> int:
    """Run a script, and what Python does at its end but for taking apart all modules: most of them
    are the parent's, and each page of theirs would be copied for it. Returns its status.

    Raises:
        KeyboardInterrupt: Python has to end the process by the signal.
    """
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, int):
            status = ended.code & 0xFF
        elif ended.code is not None:
            print(ended.code, file=sys.stderr)
            status = 1
    except Exception:  # noqa: BLE001 - Python would say it, too
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        try:
            if not file.closed:
                file.flush()
        except OSError:
            status = 120
    return status


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    sys.path.insert(1, str(PROJECT))
    import_mailroom()
    del sys.path[1]
    # A fork has not the threads of its parent.
    assert threading.active_count() == 1
    # Whoever installs another loop does so by itself, as `piccolo.main` when it is imported.
    assert type(asyncio.get_event_loop_policy()) is asyncio.DefaultEventLoopPolicy
    libraries = sys.path[1:]
    # Or each fork goes through all objects of the libraries while it imports Mailroom.
    gc.freeze()
    request, files = serve(socket.socket(fileno=int(sys.argv[1])))
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    if rounds := os.environ.pop(ROUNDS, ""):
        BaseUser._pbkdf2_iteration_count = int(rounds)
    # It is ignored, and so by Python, where the tests run in the background of a script.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = request["command"]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path = [str(Path(sys.argv[0]).parent), *filter(None, inherited), *libraries]
    os._exit(run(sys.argv[0]))


if __name__ == "__main__":
    main()
