"""Names of hosts, as settings and as browsers write them."""

import ipaddress
import re
from typing import Self
from urllib.parse import urlsplit

import attrs

NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
PORTS = {"https": 443, "http": 80}


@attrs.frozen
class Origin:
    """A scheme, a host's name as `host_name` writes it, and a port: who may be told a secret."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host`, `host:port` or `http://host:port`; https where nothing is said.

        Raises:
            ValueError: it is none of these.
        """
        try:
            parts = urlsplit(text if "://" in text else f"https://{text}")
            port = parts.port
        except ValueError:
            raise ValueError(f"{text!r} is no host") from None
        host = host_name(text)
        is_bare = not (parts.query or parts.fragment) and parts.path in ("", "/")
        if host is None or parts.scheme not in PORTS or not is_bare:
            raise ValueError(f"{text!r} is no host")
        return cls(parts.scheme, host, port or PORTS[parts.scheme])


def host_name(text: str) -> str | None:
    """The name in a Host header, a URL, or an address with a port: lower case, without a final dot.

    An IPv6 address is written in its shortest form, without brackets. None, where there is none.
    """
    text = text.strip()
    try:
        return ipaddress.ip_address(text).compressed
    except ValueError:
        pass
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        # Reading the port checks it.
        name = (parts.hostname or "").rstrip(".") if parts.port is None or parts.port else ""
    except ValueError:
        return None
    if parts.username is not None:
        return None
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        pass
    try:
        # Browsers send other letters in this form.
        name = name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None
    return name if NAME.fullmatch(name) else None
