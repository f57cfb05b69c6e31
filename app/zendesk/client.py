"""Zendesk's API, as far as Mailroom asks it. The token goes to the account's own host and nowhere
else: no redirect is followed with it.

https://developer.zendesk.com/api-reference/ticketing/users/users/#show-user
"""

import asyncio
import re
import time
from collections import OrderedDict
from http import HTTPMethod, HTTPStatus
from typing import Any
from weakref import WeakValueDictionary

import attrs
import httpx2
import msgspec

from app.errors import MailroomError
from app.http.host_names import Origin
from app.models.fit import fit_text
from app.outbound.busy_hosts import DEFAULT_SECONDS, retry_after_seconds
from app.outbound.client import Answer, Credentials, Limits, OutboundClient
from app.outbound.errors import (
    AddressNotAllowedError,
    HostNotAllowedError,
    OutboundError,
    UntrustedError,
)
from app.outbound.rules import Rules
from app.settings import Settings

LIMITS = Limits(total_seconds=30.0, most_bytes=1024 * 1024, silent_seconds=15.0)
AT_ONCE = 4
PATHS = ("/api/v2/users/",)

REMEMBERED = 10_000
REMEMBERED_SECONDS = 3600.0
# Somebody without an address may get one.
NOBODY_REMEMBERED_SECONDS = 300.0

_USER_ID = re.compile(r"[0-9]{1,20}")
_REMAINING = ("ratelimit-remaining", "rate-limit-remaining", "x-rate-limit-remaining")
_RESET = ("ratelimit-reset", "rate-limit-reset")


class ZendeskError(MailroomError):
    """Zendesk did not tell; the message says why, and what to do."""


class ZendeskAwayError(ZendeskError):
    """It cannot be reached, or fails: asking later may help."""


class ZendeskBusyError(ZendeskAwayError):
    """Its rate limit is used up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Zendesk's API asks to wait {seconds:.0f} seconds")
        self.seconds = seconds


@attrs.frozen
class User:
    """Somebody who writes to the account. Without an address it is a phone or a chat."""

    email: str | None
    name: str | None


class ZendeskClient:
    """Asks one account's API, over connections of the event loop it is used in."""

    def __init__(self, settings: Settings) -> None:
        self._origin = origin = Origin.parse(settings.zendesk_address)
        rules = Rules.from_settings(settings, [origin.host])
        self._http = OutboundClient(
            attrs.evolve(rules, most_redirects=0), LIMITS, ca_file=settings.outbound_ca_file
        )
        self._credentials = Credentials.basic(
            origin, f"{settings.zendesk_email}/token", settings.zendesk_token, PATHS
        )
        self._users: OrderedDict[str, tuple[User | None, float]] = OrderedDict()
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._busy_until = 0.0

    async def find_user(self, user_id: str) -> User | None:
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
            found = _user(await self._get(f"/api/v2/users/{user_id}.json"))
            has_address = found is not None and found.email is not None
            seconds = REMEMBERED_SECONDS if has_address else NOBODY_REMEMBERED_SECONDS
            self._users[user_id] = (found, time.monotonic() + seconds)
            self._users.move_to_end(user_id)
            if len(self._users) > REMEMBERED:
                self._users.popitem(last=False)
            return found

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _get(self, path: str) -> Any:
        """The JSON at a path; None for 404."""
        origin = self._origin
        url = httpx2.URL(scheme=origin.scheme, host=origin.host, port=origin.port, path=path)
        async with self._at_once:
            left = self._busy_until - time.monotonic()
            if left > 0:
                raise ZendeskBusyError(left)
            try:
                async with self._http.ask(
                    HTTPMethod.GET, url, credentials=self._credentials
                ) as answer:
                    self._heed_limit(answer)
                    return _content(answer.status, await answer.read())
            except (HostNotAllowedError, AddressNotAllowedError, UntrustedError) as error:
                raise ZendeskError(f"Zendesk's API is not asked: {error}") from error
            except OutboundError as error:
                raise ZendeskAwayError(f"Zendesk's API does not answer: {error}") from error

    def _heed_limit(self, answer: Answer) -> None:
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            seconds = retry_after_seconds(answer.headers.get("retry-after")) or DEFAULT_SECONDS
            self._busy_until = time.monotonic() + seconds
            raise ZendeskBusyError(seconds)
        remaining = next((answer.headers[n] for n in _REMAINING if n in answer.headers), None)
        if remaining == "0":
            reset = next((answer.headers[n] for n in _RESET if n in answer.headers), None)
            self._busy_until = time.monotonic() + (retry_after_seconds(reset) or DEFAULT_SECONDS)


def _content(status: int, body: bytes) -> Any:
    """The JSON of an answer; None for 404."""
    if status == HTTPStatus.NOT_FOUND:
        return None
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ZendeskAwayError(f"Zendesk's API answers {status}")
    if status != HTTPStatus.OK:
        raise ZendeskError(
            f"Zendesk's API answers {status}: see MAILROOM_ZENDESK_EMAIL, "
            "MAILROOM_ZENDESK_TOKEN and the address of the account"
        )
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise ZendeskError("Zendesk's API answers no JSON: see MAILROOM_ZENDESK_URL") from error


def _user(content: Any) -> User | None:
    user = content.get("user") if isinstance(content, dict) else None
    if not isinstance(user, dict):
        return None
    return User(email=_text(user.get("email")), name=_text(user.get("name")))


def _text(value: Any) -> str | None:
    return (fit_text(value).strip() or None) if isinstance(value, str) else None
