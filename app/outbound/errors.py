"""Why a call did not succeed: one class a cause. Messages name hosts and never a path, a query or
a token, so they may be shown and logged.
"""

from app.errors import MailroomError


class OutboundError(MailroomError):
    """A call did not succeed. `host` is whom it was for, as far as that is known."""

    def __init__(self, message: str, host: str | None = None) -> None:
        super().__init__(message)
        self.host = host


class NotAUrlError(OutboundError):
    """What should be called is no URL of the web, or carries a password."""


class HostNotAllowedError(OutboundError):
    """The host, its port or the scheme is not among those that may be called."""


class AddressNotAllowedError(OutboundError):
    """The host's name leads to an address that must not be called."""


class TooManyRedirectsError(OutboundError):
    """Each answer sends on to another place."""


class UnreachableError(OutboundError):
    """There is no such host, or nothing that answers in HTTP."""


class UntrustedError(UnreachableError):
    """The host cannot prove who it is."""


class IncompleteError(OutboundError):
    """The answer ended before it was whole."""


class TimedOutError(OutboundError):
    """The answer took too long, or came too slowly."""


class TooLargeError(OutboundError):
    """The answer has more bytes than are taken."""


class EncodedError(OutboundError):
    """The answer is compressed, though that was not asked for: it could unfold without end."""


class MailRefusedError(OutboundError):
    """A mail server does not take a message."""
