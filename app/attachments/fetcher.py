"""Fetches one file of an email: Zendesk's way, or plainly from another host that is allowed.

https://developer.zendesk.com/documentation/ticketing/managing-tickets/accessing-end-user-uploaded-attachments/
The URL in an email answers 302 to whoever shows the account's token, and the link that it leads to
is good for a short while: it is asked for anew each time, and neither stored nor logged.
"""

from http import HTTPMethod
from pathlib import Path

import attrs
import httpx2

from app.attachments.content_type import find_content_type
from app.attachments.login_page import LOOKED_AT_BYTES, is_login_page, leads_to_login
from app.attachments.reasons import Reason
from app.attachments.spool import Spool
from app.http.host_names import Origin
from app.outbound.busy_hosts import BusyHostError, BusyHosts
from app.outbound.client import Answer, Credentials, Limits, OutboundClient
from app.outbound.errors import (
    AddressNotAllowedError,
    EncodedError,
    HostNotAllowedError,
    IncompleteError,
    NotAUrlError,
    OutboundError,
    TimedOutError,
    TooLargeError,
    TooManyRedirectsError,
    UnreachableError,
)
from app.outbound.network import Resolve, resolve
from app.outbound.rules import Rules, origin_of
from app.settings import Settings

# Where Zendesk keeps the files themselves.
CDN = "*.zdusercontent.com"
# Without an account's name every account's files are asked for, and none gets a token.
ANY_ACCOUNT = "*.zendesk.com"
# The token opens all of the account, and an email may name any URL in it: so it is shown for files
# alone.
FILES = ("/attachments/",)

_OK = 200
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_GONE = (404, 410)

# Each with whether trying again is of no use.
_REASONS: dict[type[OutboundError], tuple[Reason, bool]] = {
    NotAUrlError: (Reason.NOT_A_URL, True),
    HostNotAllowedError: (Reason.HOST_NOT_ALLOWED, True),
    AddressNotAllowedError: (Reason.BLOCKED_ADDRESS, True),
    TooManyRedirectsError: (Reason.TOO_MANY_REDIRECTS, True),
    TooLargeError: (Reason.TOO_LARGE, True),
    EncodedError: (Reason.COMPRESSED, True),
    TimedOutError: (Reason.TIMEOUT, False),
    IncompleteError: (Reason.INCOMPLETE, False),
    UnreachableError: (Reason.UNREACHABLE, False),
}


@attrs.frozen
class Wanted:
    """A file as the email names it."""

    url: str
    content_type: str | None
    size: int | None
    """Bytes."""
    ticket_id: str | None = None
    """Zendesk's ticket that it came with: there its malware scan is looked up."""


@attrs.frozen
class Fetched:
    """A file that is here."""

    path: Path
    """A temporary file; whoever called removes it."""
    size: int
    """Bytes."""
    sha256: str
    """In hex."""
    content_type: str
    """As its bytes tell, or what others say of it where they do not."""


@attrs.frozen
class NotFetched:
    """Why a file is not here."""

    reason: Reason
    detail: str
    """For operators; names hosts, and never a token or a temporary link."""
    is_final: bool
    """Whether trying again is of no use while nothing else changes."""
    retry_after_seconds: float | None = None
    """How long somebody asked to wait."""
    host: str | None = None
    """Who did not give it; whom to leave alone meanwhile."""


class _Unfetched(Exception):  # noqa: N818 - carries an outcome, and is no error of ours
    def __init__(self, outcome: NotFetched) -> None:
        self.outcome = outcome


class Fetcher:
    """Fetches files over connections of the event loop it is used in. One a process."""

    def __init__(self, settings: Settings, *, resolve: Resolve = resolve) -> None:
        names_account = bool(settings.zendesk_subdomain or settings.zendesk_url)
        self._account = Origin.parse(settings.zendesk_address) if names_account else None
        own = {self._account.host} if self._account else {ANY_ACCOUNT}
        self._own_hosts = own | set(settings.zendesk_hosts)
        self._rules = Rules.from_settings(
            settings, [*self._own_hosts, CDN, *settings.attachment_hosts]
        )
        self._has_token = bool(settings.zendesk_token)
        self._user = f"{settings.zendesk_email}/token"
        self._token = settings.zendesk_token
        self._client = OutboundClient(
            self._rules,
            Limits(
                total_seconds=settings.attachment_timeout_seconds,
                most_bytes=settings.attachment_max_bytes,
                least_bytes_per_second=settings.attachment_min_bytes_per_second,
            ),
            ca_file=settings.outbound_ca_file,
            resolve=resolve,
        )
        self._busy = BusyHosts()

    async def fetch(self, wanted: Wanted, folder: Path) -> Fetched | NotFetched:
        """Fetch a file into the folder. What goes wrong is told and not raised."""
        try:
            url = self._rules.check(wanted.url)
            self._busy.check(origin_of(url).host)
            return await self._download(url, wanted, folder)
        except _Unfetched as unfetched:
            return unfetched.outcome
        except BusyHostError as error:
            return NotFetched(Reason.BUSY, str(error), False, error.seconds, error.host)
        except OutboundError as error:
            # The first that fits: some are kinds of others.
            reason, is_final = next(
                told for kind, told in _REASONS.items() if isinstance(error, kind)
            )
            return NotFetched(reason, str(error), is_final, host=error.host)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _download(self, url: httpx2.URL, wanted: Wanted, folder: Path) -> Fetched:
        async with self._client.ask(
            HTTPMethod.GET,
            url,
            credentials=self._credentials(url),
            before_redirect=self._before_redirect,
        ) as answer:
            self._refuse_other_answers(answer)
            with Spool(folder, LOOKED_AT_BYTES) as spool:
                async for block in answer.blocks():
                    await spool.write(block)
                await spool.flush()
                is_own = self._is_own(answer.url)
                if is_own and is_login_page(spool.head, answer, wanted.content_type):
                    raise self._login_needed(answer.host)
                content_type = find_content_type(
                    spool.head, answer.headers.get("content-type"), wanted.content_type
                )
                return Fetched(spool.path, spool.size, spool.keep(), content_type)

    def _credentials(self, url: httpx2.URL) -> Credentials | None:
        if not self._has_token or self._account is None or not self._is_own(url):
            return None
        origin = origin_of(url)
        if origin != self._account and origin.scheme != "https":
            return None
        return Credentials.basic(origin, self._user, self._token, FILES)

    def _before_redirect(self, source: httpx2.URL, target: httpx2.URL) -> None:
        if self._is_own(source) and leads_to_login(target):
            raise self._login_needed(origin_of(source).host)
        self._busy.check(origin_of(target).host)

    def _refuse_other_answers(self, answer: Answer) -> None:
        """See that an answer is a file, by its status."""
        status, host = answer.status, answer.host
        self._busy.heed(host, status, answer.headers)
        if status == _OK:
            return
        is_own = self._is_own(answer.url)
        if status == _UNAUTHORIZED or (status == _FORBIDDEN and is_own):
            raise self._login_needed(host)
        detail = f"{host} answered {status}"
        if status in _GONE or status == _FORBIDDEN:
            # A temporary link that ran out is made anew with the next try.
            is_final = answer.redirects == 0
            reason = Reason.REFUSED if status == _FORBIDDEN else Reason.GONE
            raise _Unfetched(NotFetched(reason, detail, is_final, host=host))
        if status >= 500:
            raise _Unfetched(NotFetched(Reason.UNREACHABLE, detail, False, host=host))
        raise _Unfetched(NotFetched(Reason.REFUSED, detail, True, host=host))

    def _login_needed(self, host: str) -> _Unfetched:
        if self._has_token:
            detail, is_final = f"{host} wants a login in spite of the token", False
        else:
            detail, is_final = f"{host} wants a login, and no token is set", True
        return _Unfetched(NotFetched(Reason.LOGIN_NEEDED, detail, is_final, host=host))

    def _is_own(self, url: httpx2.URL) -> bool:
        """Whether a URL belongs to the account, or to any where none is named."""
        host = origin_of(url).host
        return host in self._own_hosts or (
            ANY_ACCOUNT in self._own_hosts and host.endswith(ANY_ACCOUNT[1:])
        )
