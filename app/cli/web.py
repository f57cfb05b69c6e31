"""`mailroom web`."""

import signal
import socket

import click
import uvicorn

from app.errors import MailroomError
from app.main import create_app
from app.settings import Settings, get_settings

BACKLOG = 2048
# More than the deadline of an accepted webhook, so each is answered before the end.
STOP_MARGIN_SECONDS = 2


class PortInUseError(MailroomError):
    """The web process cannot listen where it is told to."""


def listen(settings: Settings) -> socket.socket:
    """The socket of the web process. Connections wait in it while the process starts again.

    Raises:
        PortInUseError: the address is taken or not ours; the message says which.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortInUseError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}): stop what "
            "listens there, or set MAILROOM_HOST and MAILROOM_PORT to another address"
        ) from error
    return listener


@click.command()
@click.option("--fd", type=int, hidden=True, help="A socket that listens already.")
def web(fd: int | None) -> None:
    """Run the web process, which takes email.

    It listens on MAILROOM_HOST and MAILROOM_PORT, and needs the database alone: no broker, no
    worker. Any number of web processes can run beside each other.
    """
    settings = get_settings()
    listener = listen(settings) if fd is None else socket.socket(fileno=fd)
    config = uvicorn.Config(
        create_app(),
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
    # uvicorn ends by the signal that stopped it, unless it has a handler: then it is an exit 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(1)
