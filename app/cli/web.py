"""`mailroom web`."""

import resource
import signal
import socket
from typing import NoReturn

import click
import uvicorn
from litestar import Litestar

from app.cli.listener import BACKLOG, listen
from app.http.protocol import IDLE_SECONDS, MOST_CONNECTIONS, BoundedProtocol
from app.main import Part, create_app
from app.settings import Settings, get_settings

# More than the deadline of an accepted webhook, so each is answered before the end.
STOP_MARGIN_SECONDS = 2


def server_config(app: Litestar, settings: Settings) -> uvicorn.Config:
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


def _allow_connections() -> None:
    """Let this process have as many connections as it takes. Many systems give it 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


@click.command()
@click.option("--fd", type=int, hidden=True, help="A socket that listens already.")
@click.option(
    "--only",
    type=click.Choice(["intake", "desk"]),
    help="Take email alone, or be there for people and programs alone.",
)
def web(fd: int | None, only: Part | None) -> None:
    """Run the web process, which takes email, and shows it to people and programs.

    It listens on MAILROOM_HOST and MAILROOM_PORT, and needs the database alone: no broker, no
    worker. Any number of web processes can run beside each other.

    With `--only intake` it has no admin interface, no overview and no jobs API; with `--only desk`
    it has no webhook (404). Health and metrics are in both. Apart, nothing that people do delays
    email.
    """
    # Before it listens: who sees it listen may stop it at once. While uvicorn serves it has its own
    # handlers, and passes the signal on to these in the end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    _allow_connections()
    settings = get_settings()
    listener = listen(settings) if fd is None else socket.socket(fileno=fd)
    server = uvicorn.Server(server_config(create_app(only), settings))
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(1)
