"""Zendesk's API over HTTP: who is asked, how often, and what an answer that is none means.

The token goes to the account's own host and nowhere else: no redirect is followed with it. What
may be asked stands beside it: `users`, `webhooks`, `tickets`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPMethod, HTTPStatus
from typing import Any

import attrs
import httpx2
import msgspec

from app.http.host_names import Origin
from app.models.fit import in_utc
from app.outbound.client import Credentials, Limits, OutboundClient
from app.outbound.errors import (
    AddressNotAllowedError,
    HostNotAllowedError,
    OutboundError,
    UntrustedError,
)
from app.outbound.rules import Rules
from app.outbound.zendesk_limits import limit_of, limits_of_account
from app.pauses import GrowingPause
from app.settings import Settings
from app.zendesk.clocks import allowed
from app.zendesk.errors import (
    WHERE_TO_LOOK,
    ZendeskAwayError,
    ZendeskBusyError,
    ZendeskError,
    ZendeskForbiddenError,
    ZendeskMovedError,
    ZendeskNotFoundError,
    ZendeskRefusedError,
    ZendeskShapeError,
    ZendeskTokenError,
)

# A page may hold a thousand tickets, each with its description.
LIMITS = Limits(total_seconds=60.0, most_bytes=64 * 1024 * 1024, silent_seconds=30.0)
AT_ONCE = 4
PATHS = ("/api/v2/",)
# Whoever has a token may ask for it, and it answers at once.
ANY_PATH = "/api/v2/users/me.json"

# A shorter wait is waited for, unless the caller has more patience.
SHORT_WAIT_SECONDS = 5.0
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 30.0

OnWait = Callable[[float, str], Awaitable[None]]


class ZendeskClient:
    """Asks one account's API, over connections of the event loop it is used in.

    Args:
        patience_seconds: how long one call may wait for the rate limit in all.
        tries: how often what changes nothing is asked for, where Zendesk is away.
        on_wait: told of each wait before it: its seconds, and why.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        patience_seconds: float = SHORT_WAIT_SECONDS,
        tries: int = 1,
        on_wait: OnWait | None = None,
    ) -> None:
        self._origin = origin = Origin.parse(settings.zendesk_address)
        rules = Rules.from_settings(settings, [origin.host])
        self._http = OutboundClient(
            attrs.evolve(rules, most_redirects=0), LIMITS, ca_file=settings.outbound_ca_file
        )
        self._credentials = Credentials.basic(
            origin, f"{settings.zendesk_email}/token", settings.zendesk_token, PATHS
        )
        self._limits = limits_of_account(settings)
        self._patience_seconds = patience_seconds
        self._tries = tries
        self._on_wait = on_wait
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self.clock_ahead: timedelta | None = None
        """By how much this machine's clock is before Zendesk's, as its last answer told; less than
        zero where it is behind. None: it told nothing."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON at a path of the account, such as `/api/v2/webhooks`.

        Raises:
            ZendeskError: the class says why.
        """
        return await self.ask(HTTPMethod.GET, path, params=params)

    async def ask(
        self,
        method: HTTPMethod,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: Any = None,
    ) -> Any:
        """Ask for something to be done, with JSON if `content` is given. Returns the JSON that is
        answered; None where there is none.

        Raises:
            ZendeskError: the class says why.
        """
        origin = self._origin
        url = httpx2.URL(
            scheme=origin.scheme,
            host=origin.host,
            port=origin.port,
            path=path,
            params=dict(params or {}),
        )
        body = None if content is None else msgspec.json.encode(content)
        pause = GrowingPause(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        waited, tried = 0.0, 0
        reason: ZendeskAwayError
        while True:
            try:
                return await self._ask_once(method, url, body)
            except ZendeskBusyError as error:
                if waited + error.seconds > self._patience_seconds:
                    raise
                seconds, reason = error.seconds, error
                waited += seconds
            except ZendeskAwayError as error:
                tried += 1
                # Where it is not known what became of a change, it is not asked for again.
                if tried >= self._tries or method is not HTTPMethod.GET:
                    raise
                seconds, reason = pause.next_seconds(), error
            if self._on_wait is not None:
                await self._on_wait(seconds, str(reason))
            await asyncio.sleep(seconds)

    async def now(self) -> datetime:
        """The time by Zendesk's clock, as far as it was told; it is asked if it did not answer yet.
        In whole seconds, as Zendesk tells its times: what is of this second is not before it.

        Raises:
            ZendeskError: the class says why.
        """
        if self.clock_ahead is None:
            await self.get(ANY_PATH)
        return (datetime.now(UTC) - allowed(self.clock_ahead)).replace(microsecond=0)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask_once(self, method: HTTPMethod, url: httpx2.URL, body: bytes | None) -> Any:
        name = limit_of(url.path)
        async with self._at_once:
            self._check_refusal()
            if (seconds := self._limits.take(name)) > 0:
                raise ZendeskBusyError(seconds)
            headers = {} if body is None else {"content-type": "application/json"}
            try:
                async with self._http.ask(
                    method, url, headers=headers, content=body, credentials=self._credentials
                ) as answer:
                    self._compare_clocks(answer.headers.get("date"))
                    if (seconds := self._limits.heed(name, answer.status, answer.headers)) > 0:
                        raise ZendeskBusyError(seconds)
                    return self._content(answer.status, await answer.read())
            except (HostNotAllowedError, AddressNotAllowedError, UntrustedError) as error:
                raise ZendeskError(f"Zendesk's API is not asked: {error}") from error
            except OutboundError as error:
                raise ZendeskAwayError(f"Zendesk's API does not answer: {error}") from error

    def _compare_clocks(self, date: str | None) -> None:
        """https://httpwg.org/specs/rfc9110.html#field.date"""
        try:
            theirs = in_utc(parsedate_to_datetime(date or ""))
        except (ValueError, OverflowError):
            return
        self.clock_ahead = datetime.now(UTC) - theirs

    def _check_refusal(self) -> None:
        seconds = self._limits.refused_seconds
        if seconds > 0:
            until = datetime.now(UTC) + timedelta(seconds=seconds)
            raise ZendeskTokenError(
                f"Zendesk's API answers 401: {WHERE_TO_LOOK}; it is not asked again before "
                f"{until:%H:%M:%S} UTC"
            )

    def _content(self, status: int, body: bytes) -> Any:
        """The JSON of an answer."""
        if status == HTTPStatus.UNAUTHORIZED:
            self._check_refusal()
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ZendeskAwayError(f"Zendesk's API answers {status}")
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise ZendeskMovedError(
                f"Zendesk's API answers {status} and sends on to another address, where the token "
                "does not go: was the account moved? See MAILROOM_ZENDESK_SUBDOMAIN and "
                "MAILROOM_ZENDESK_URL"
            )
        if status == HTTPStatus.NOT_FOUND:
            raise ZendeskNotFoundError("Zendesk's API answers 404: it knows nothing of that")
        if status == HTTPStatus.FORBIDDEN:
            raise ZendeskForbiddenError(
                "Zendesk's API answers 403: the agent of MAILROOM_ZENDESK_EMAIL may not do this; "
                "an administrator's token is needed"
            )
        if status >= HTTPStatus.BAD_REQUEST:
            raise ZendeskRefusedError(f"Zendesk's API answers {status}{_named(body)}", status)
        if not body.strip():
            return None
        try:
            return _read_json(body)
        except (ValueError, RecursionError) as error:
            raise ZendeskShapeError(
                "Zendesk's API answers no JSON: see MAILROOM_ZENDESK_URL"
            ) from error


def _read_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        # One text with half of a surrogate pair must not cost all else on its page.
        return json.loads(body)


def _named(body: bytes) -> str:
    """The error's own name, which is a word; its description may quote what was asked."""
    try:
        content = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return ""
    name = content.get("error") if isinstance(content, dict) else None
    return f" ({name})" if isinstance(name, str) and name.isalnum() else ""
