"""The socket on which the web process listens."""

import socket

from app.errors import MailroomError
from app.settings import Settings

BACKLOG = 2048


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
