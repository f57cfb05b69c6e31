"""Who acts, by what door and from where: as the doors tell it to the audit log."""

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import attrs

from app.models.audit_entry import LONGEST_NAME, ActorKind, Door
from app.models.fit import fit_text
from app.settings import get_settings
from app.telemetry.request_id import STATE_KEY


def _fitting(text: str) -> str:
    return fit_text(text)[:LONGEST_NAME]


@attrs.frozen
class Actor:
    """Who acts."""

    kind: ActorKind
    name: str = attrs.field(converter=_fitting)
    door: Door
    user_id: int | None = None
    address: str | None = None
    request_id: UUID | None = None

    @classmethod
    def user(
        cls, user_id: int, name: str, scope: Mapping[str, Any], *, door: Door = Door.PAGE
    ) -> "Actor":
        """Who has signed in; the scope is that of the request."""
        return cls(ActorKind.USER, name, door, user_id, address_of(scope), _request_id(scope))

    @classmethod
    def token(cls, name: str, scope: Mapping[str, Any]) -> "Actor":
        """A program with the token of this name."""
        return cls(ActorKind.TOKEN, name, Door.API, None, address_of(scope), _request_id(scope))

    @classmethod
    def nobody(cls, scope: Mapping[str, Any], *, door: Door = Door.PAGE) -> "Actor":
        """Who could not say who it is."""
        return cls(ActorKind.NOBODY, "", door, None, address_of(scope), _request_id(scope))

    @classmethod
    def command(cls, acting_as: str | None) -> "Actor":
        """Who typed a command: the account of this machine, or whoever it says it acts as."""
        account = _fitting(f"{_account()}@{socket.gethostname()}")
        address = account if get_settings().audit_addresses else None
        return cls(ActorKind.COMMAND, acting_as or account, Door.COMMAND, None, address)


def address_of(scope: Mapping[str, Any]) -> str | None:
    """From where a request came, by what the proxies that are trusted say; None where the settings
    want none kept."""
    client = scope.get("client")
    if not client or not get_settings().audit_addresses:
        return None
    return _fitting(str(client[0]))


def _request_id(scope: Mapping[str, Any]) -> UUID | None:
    found = scope.get("state", {}).get(STATE_KEY)
    return found if isinstance(found, UUID) else None


def _account() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # In a container, a user may have a number alone.
        name = str(os.getuid())
    before = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    return f"{before} as {name}" if before else name
