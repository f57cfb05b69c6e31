"""Who writes to the account.

https://developer.zendesk.com/api-reference/ticketing/users/users/#show-user
"""

import asyncio
import re
import time
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

import attrs

from app.models.fit import fit_text
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import WHERE_TO_LOOK, ZendeskError, ZendeskNotFoundError
from app.zendesk.items import as_object

ROLES = ("agent", "admin")

REMEMBERED = 10_000
REMEMBERED_SECONDS = 3600.0
# Somebody without an address may get one.
NOBODY_REMEMBERED_SECONDS = 300.0

_USER_ID = re.compile(r"[0-9]{1,20}")


@attrs.frozen
class User:
    """Somebody who writes to the account. Without an address it is a phone or a chat."""

    email: str | None
    name: str | None
    role: str | None = None
    """`end-user`, `agent` or `admin`."""


class Users:
    """Finds users, and remembers them for a while."""

    def __init__(self, client: ZendeskClient) -> None:
        self._client = client
        self._users: OrderedDict[str, tuple[User | None, float]] = OrderedDict()
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, user_id: str) -> User | None:
        """Who a user is; None where there is no such user. The answer is up to an hour old.

        Raises:
            ZendeskBusyError: the rate limit is used up; nothing was asked, or nothing told.
            ZendeskAwayError: asking later may help.
            ZendeskError: the token or the account is wrong.
        """
        if not _USER_ID.fullmatch(user_id):
            return None
        # Who asks for the same user meanwhile gets the same answer.
        lock = self._asking.setdefault(user_id, asyncio.Lock())
        async with lock:
            known, until = self._users.get(user_id, (None, 0.0))
            if time.monotonic() < until:
                return known
            found = await self._ask(user_id)
            has_address = found is not None and found.email is not None
            seconds = REMEMBERED_SECONDS if has_address else NOBODY_REMEMBERED_SECONDS
            self._users[user_id] = (found, time.monotonic() + seconds)
            self._users.move_to_end(user_id)
            if len(self._users) > REMEMBERED:
                self._users.popitem(last=False)
            return found

    async def _ask(self, user_id: str) -> User | None:
        try:
            content = await self._client.get(f"/api/v2/users/{user_id}.json")
        except ZendeskNotFoundError:
            return None
        return read_user(as_object(content).get("user"))


async def own_role(client: ZendeskClient) -> str:
    """What the owner of the token is in the account: `agent` or `admin`.

    Raises:
        ZendeskAwayError: asking later may help.
        ZendeskError: the token is nobody's, or of somebody who may not ask.
    """
    try:
        content = await client.get("/api/v2/users/me.json")
    except ZendeskNotFoundError as error:
        raise ZendeskError(f"{error}: {WHERE_TO_LOOK}") from error
    user = as_object(as_object(content).get("user"))
    # Whoever is not signed in is told of a user without an id.
    if user.get("id") is None:
        raise ZendeskError(f"Zendesk's API knows nobody by the token: {WHERE_TO_LOOK}")
    role = user.get("role")
    if role not in ROLES:
        raise ZendeskError(
            "the owner of Zendesk's token is no agent: let MAILROOM_ZENDESK_EMAIL name one"
        )
    return str(role)


def read_user(raw: Any) -> User | None:
    """A user as the API shows them; None where it is none."""
    if not isinstance(raw, dict):
        return None
    return User(_text(raw.get("email")), _text(raw.get("name")), _text(raw.get("role")))


def _text(value: Any) -> str | None:
    return (fit_text(value).strip() or None) if isinstance(value, str) else None
