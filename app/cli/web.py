"""`mailroom web`."""

import signal
import socket
from typing import NoReturn

import click
import uvicorn
from litestar import Litestar

from app.cli.listener import BACKLOG, listen
from app.main import create_app
from app.settings import Settings, get_settings

# More than the deadline of an accepted webhook, so each is answered before the end.
STOP_MARGIN_SECONDS = 2


def server_config(app: Litestar, settings: Settings) -> uvicorn.Config:
    """How the web process is served."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(settings.intake_deadline_seconds) + STOP_MARGIN_SECONDS,
    )


def _exit(*_: object) -> NoReturn:
    raise SystemExit(0)


@click.command()
@click.option("--fd", type=int, hidden=True, help="A socket that listens already.")
def web(fd: int | None) -> None:
    """Run the web process, which takes email.

    It listens on MAILROOM_HOST and MAILROOM_PORT, and needs the database alone: no broker, no
    worker. Any number of web processes can run beside each other.
    """
    # Before it listens: who sees it listen may stop it at once. While uvicorn serves it has its own
    # handlers, and passes the signal on to these in the end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    settings = get_settings()
    listener = listen(settings) if fd is None else socket.socket(fileno=fd)
    server = uvicorn.Server(server_config(create_app(), settings))
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(1)
