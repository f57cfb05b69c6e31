"""Addresses that people give to commands with `--url`."""

from urllib.parse import SplitResult, urlsplit

from app.errors import MailroomError


class AddressError(MailroomError):
    """What was given is not the address of a web server."""


def split_address(url: str) -> SplitResult:
    """The parts of an address.

    Raises:
        AddressError: it is none of a web server.
    """
    try:
        parts = urlsplit(url)
        # A port is looked at when it is asked for.
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise AddressError(f"--url {url} is no address: write https://host, or https://host/prefix")
    return parts
