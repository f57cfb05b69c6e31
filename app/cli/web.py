"""`mailroom web`."""

import contextlib
import gc
import resource
import signal
import socket
from pathlib import Path
from typing import NoReturn

import click
import structlog
import uvicorn
from litestar import Litestar

from app.cli.listener import BACKLOG, listen
from app.cli.processes import Part as ChildProcess
from app.cli.processes import Supervisor, mailroom_command
from app.http.protocol import IDLE_SECONDS, MOST_CONNECTIONS, BoundedProtocol
from app.main import Part, create_app
from app.settings import Settings, get_settings
from app.telemetry.logs import configure_logging
from app.telemetry.process_metrics import counted_together, environment_of

# More than the deadline of an accepted webhook, so each is answered before the end.
STOP_MARGIN_SECONDS = 2

# As many as some dozens of webhooks in hand make: with Python's own 700 each collection finds them
# all in use.
YOUNG_OBJECTS = 5_000


def _server_config(app: Litestar, settings: Settings) -> uvicorn.Config:
    """How the web process is served."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=int(settings.intake_deadline_seconds) + STOP_MARGIN_SECONDS,
    )


class Server(uvicorn.Server):
    """uvicorn's server, which waits at its end for answers that have begun: those to live pages
    would go on for ever."""

    def __init__(self, app: Litestar, settings: Settings) -> None:
        super().__init__(_server_config(app, settings))
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there by now stays: to walk over it was a fifth of an email's processor time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if (live := self._app.state.get("live")) is not None:
            live.close()
        await super().shutdown(sockets)


def _allow_connections() -> None:
    """Let this process have as many connections as it takes. Many systems give it 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def web_parts(
    listener: socket.socket, processes: int, folder: Path, *, only: Part | None = None
) -> list[ChildProcess]:
    """Web processes that accept connections from one socket.

    Args:
        folder: where they count together, if they are several.
    """
    command = mailroom_command("web", "--fd", str(listener.fileno()))
    if only is not None:
        command += ["--only", only]
    descriptors = (listener.fileno(),)
    if processes == 1:
        return [ChildProcess("web", command, file_descriptors=descriptors)]
    return [
        ChildProcess(f"web-{place}", command, environment_of(folder, place), descriptors)
        for place in range(1, processes + 1)
    ]


def _run_several(settings: Settings, count: int, only: Part | None) -> int:
    configure_logging(settings)
    with contextlib.closing(listen(settings)) as listener, counted_together() as folder:
        supervisor = Supervisor(
            web_parts(listener, count, folder, only=only),
            stop_seconds=settings.intake_deadline_seconds + STOP_MARGIN_SECONDS,
            tell=structlog.get_logger(__name__).error,
            # Who connects while they end is refused, and tries elsewhere.
            on_stopping=listener.close,
        )
        return supervisor.run()


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


@click.command()
@click.option("--fd", type=int, hidden=True, help="A socket that listens already.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes that share the port, each on a core of its own. [default: the setting]",
)
@click.option(
    "--only",
    type=click.Choice(["intake", "desk"]),
    help="Take email alone, or be there for people and programs alone.",
)
def web(fd: int | None, processes: int | None, only: Part | None) -> None:
    """Run the web process, which takes email, and shows it to people and programs.

    It listens on MAILROOM_HOST and MAILROOM_PORT, and needs the database alone: no broker, no
    worker. Any number of web processes can run beside each other.

    With `--only intake` it has no admin interface, no overview and no jobs API; with `--only desk`
    it has no webhook (404). Health and metrics are in both. Apart, nothing that people do delays
    email.

    With `--processes` several of them share the port. One that dies is started again, and the
    metrics of any tell the sum of all.
    """
    # Before it listens: who sees it listen may stop it at once. While uvicorn serves it has its own
    # handlers, and passes the signal on to these in the end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    settings = get_settings()
    count = processes or settings.web_processes
    if fd is None and count > 1:
        raise SystemExit(_run_several(settings, count, only))
    _allow_connections()
    listener = listen(settings) if fd is None else socket.socket(fileno=fd)
    server = Server(create_app(only), settings)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(1)
