"""Starts console scripts in processes that have the libraries loaded already.

Most of what a process of Mailroom costs is the import of libraries. The process of this file does
that once, and forks for each script. What is forked is a process like another: a session,
arguments, an environment, a folder and files of its own. It runs the script from its first line,
and imports all of Mailroom itself.
"""

import asyncio
import contextlib
import importlib
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

# What web, worker and commands import of others, in the end.
LIBRARIES = (
    *("asyncpg", "attrs", "click", "dateutil.parser", "dateutil.tz", "fastapi_swagger", "ftfy"),
    *("dramatiq.cli", "dramatiq.brokers.rabbitmq", "dramatiq.brokers.redis", "dramatiq_postgres"),
    *("httptools", "httpx2", "jinja2", "litestar", "litestar.plugins.jinja", "msgspec", "obstore"),
    *("litestar.openapi.plugins", "litestar.static_files", "piccolo.engine.postgres", "pika"),
    *("piccolo.apps.migrations.commands.backwards", "piccolo.apps.migrations.commands.forwards"),
    *("piccolo_admin.endpoints", "piccolo_api.session_auth.piccolo_app", "psutil"),
    *("prometheus_client", "psycopg_pool", "pydantic_settings", "redis.asyncio", "structlog"),
    *("uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "uvloop"),
)
# What Python reads from the environment when it starts, and libraries when they are imported.
READ_BEFORE = ("PYTHON", "LC_", "LANG", "OTEL_", "PROMETHEUS_", "PYDANTIC_", "dramatiq_")
# A request holds a whole environment.
MOST_BYTES = 1 << 17


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
    """Is what is read before the fork the same in this environment?"""
    return all(
        environment.get(name) == os.environ.get(name)
        for name in {*environment, *os.environ}
        if name.startswith(READ_BEFORE) and name != "PYTHONPATH"
    )


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
                for number in (requests.detach(), *running, *(t for _, t in running.values())):
                    os.close(number)
                return json.loads(request), files
            for file in files[:3]:
                os.close(file)
            running[descriptor := os.pidfd_open(process_id)] = process_id, files[3]
            poll.register(descriptor, select.POLLIN)
            requests.send(str(process_id).encode())


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    # A fork has neither the threads of its parent nor, without reading it, a module of Mailroom.
    assert threading.active_count() == 1
    assert not {"app", "piccolo_conf"} & sys.modules.keys()
    # Whoever installs another loop does so by itself, as `piccolo.main` when it is imported.
    assert type(asyncio.get_event_loop_policy()) is asyncio.DefaultEventLoopPolicy
    libraries = sys.path[1:]
    request, files = serve(socket.socket(fileno=int(sys.argv[1])))
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = request["command"]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path = [str(Path(sys.argv[0]).parent), *filter(None, inherited), *libraries]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
