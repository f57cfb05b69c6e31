"""Names of hosts, as settings and as browsers write them."""

import ipaddress
import re
from urllib.parse import urlsplit

NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


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
