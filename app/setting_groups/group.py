"""What the groups of settings share: how a group is made, and the checks of what several hold."""

import base64
import binascii
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from app.http.host_names import host_name

# Neither Python nor PostgreSQL can add a time of any length to a moment, or subtract it.
LONGEST_SECONDS = 31_536_000
LONGEST_DAYS = 36_500

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SECRET_PREFIX = "whsec_"  # noqa: S105
# Bytes, by https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
SHORTEST_KEY = 24
LONGEST_KEY = 64
MAKE_A_SIGNING_SECRET = (
    "python -c \"import base64, secrets; print('whsec_'"  # noqa: S105
    ' + base64.b64encode(secrets.token_bytes(32)).decode())"'
)


class SettingGroup(BaseModel):
    """Fields that stand in `Settings` with those of the other groups.

    A check of a group raises a ValueError that names the setting and never its value. The names of
    checks are told apart over all groups, as those of fields are.
    """

    model_config = ConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    env: Literal["development", "production"] = "development"
    """`production` refuses unsafe defaults and writes logs as JSON."""

    @property
    def is_production(self) -> bool:
        return self.env == "production"


def split(text: str) -> list[str]:
    """The entries of a comma-separated setting."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def split_hosts(text: str) -> tuple[str, ...]:
    """The host names of a comma-separated setting.

    Raises:
        ValueError: an entry is none.
    """
    entries = split(text)
    names = tuple(filter(None, map(host_name, entries)))
    if len(names) < len(entries):
        wrong = next(entry for entry in entries if host_name(entry) is None)
        raise ValueError(
            f"{wrong!r} is no host name: write names such as "
            "`support.example.com` or addresses, comma-separated; there are no wildcards"
        )
    return names


def check_url(name: str, url: str) -> None:
    """Find what the drivers would stumble over; their errors would print the password.

    Raises:
        ValueError: names the setting and never its value.
    """
    try:
        parts = urlsplit(url)
        # Several hosts, comma-separated, each with its port or without.
        ports = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
        is_whole = all(port is None or port > 0 for port in ports)
    except ValueError:
        is_whole = False
    if not is_whole or re.search("%(?![0-9A-Fa-f]{2})", url):
        raise ValueError(
            f"{name} is not a URL: see its host and port, and write special characters of the "
            "password as %XX"
        )


def check_secret(name: str, secret: str) -> None:
    """See that requests can be signed with a secret, as Standard Webhooks has it.

    Raises:
        ValueError: names the secret so and never its value.
    """
    if not SHORTEST_KEY <= _key_bytes(secret) <= LONGEST_KEY:
        raise ValueError(
            f"{name} has to be `{SECRET_PREFIX}` and {SHORTEST_KEY} to {LONGEST_KEY} bytes in "
            f"base64: make one with `{MAKE_A_SIGNING_SECRET}`"
        )


def _key_bytes(secret: str) -> int:
    """How many bytes a secret has; 0 where it is none."""
    if not secret.startswith(SECRET_PREFIX):
        return 0
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        return len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except (binascii.Error, ValueError):
        return 0
