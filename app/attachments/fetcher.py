"""Fetches one file of an email: Zendesk's way, or plainly from another host that is allowed.

https://developer.zendesk.com/documentation/ticketing/managing-tickets/accessing-end-user-uploaded-attachments/
The URL in an email answers 302 to whoever shows the account's token, and the link that it leads to
is good for a short while: it is asked for anew each time, and neither stored nor logged.
"""

import time
from http import HTTPMethod, HTTPStatus
from pathlib import Path

import attrs
import httpx2

from app.attachments.account import Account
from app.attachments.content_type import find_content_type
from app.attachments.hosts import CDN
from app.attachments.login_page import LOOKED_AT_BYTES, is_login_page, leads_to_login
from app.attachments.reasons import Reason
from app.attachments.records import Record, Records, RefusedError
from app.attachments.spool import Spool, SpoolError
from app.attachments.virus_check import TooLargeToCheckError, VirusCheck, VirusCheckError
from app.outbound.busy_hosts import BusyHostError, BusyHosts
from app.outbound.client import Answer, Limits, OutboundClient
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
from app.outbound.zendesk_limits import limits_of_account
from app.settings import Settings

# The token opens all of the account, and an email may name any URL in it: so it is shown for files
# alone.
FILES = ("/attachments/",)

# Zendesk scans a file within seconds of its arrival; one that is older and was not scanned never
# will be.
SCAN_SECONDS = 120.0
ASK_SCAN_AGAIN_SECONDS = 5.0
# What the API may take: a page of a hundred comments, with their texts.
ASKING = Limits(total_seconds=30.0, most_bytes=16 * 1024 * 1024)

_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)

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
    age_seconds: float = 0.0
    """How long it has been known here."""


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
        self._account = Account.from_settings(settings)
        self._rules = Rules.from_settings(
            settings, [*self._account.hosts, CDN, *settings.attachment_hosts]
        )
        limits = Limits(
            total_seconds=settings.attachment_timeout_seconds,
            most_bytes=settings.attachment_max_bytes,
            least_bytes_per_second=settings.attachment_min_bytes_per_second,
        )
        self._client, self._api = (
            OutboundClient(self._rules, bounds, ca_file=settings.outbound_ca_file, resolve=resolve)
            for bounds in (limits, ASKING)
        )
        self._busy = BusyHosts()
        self._keeps_flagged = settings.attachment_keep_flagged
        self._records = Records(self._account, self._api, self._busy, limits_of_account(settings))
        checks = bool(settings.clamd) and not settings.attachment_keep_flagged
        self._virus_check = VirusCheck(settings.clamd) if checks else None

    async def fetch(self, wanted: Wanted, folder: Path) -> Fetched | NotFetched:
        """Fetch a file into the folder. What goes wrong is told and not raised."""
        try:
            url = self._rules.check(wanted.url)
            self._busy.check(origin_of(url).host)
            record = await self._look_up(url, wanted)
            with Spool(folder, LOOKED_AT_BYTES) as spool:
                content_type = await self._download(url, wanted, spool)
                if record is not None:
                    _compare_sizes(spool.size, record)
                await self._look_for_viruses(spool.path)
                return Fetched(spool.path, spool.size, spool.keep(), content_type)
        except _Unfetched as unfetched:
            return unfetched.outcome
        except SpoolError as error:
            return NotFetched(Reason.NO_ROOM, str(error), False)
        except BusyHostError as error:
            return NotFetched(Reason.BUSY, str(error), False, error.seconds, error.host)
        except RefusedError as error:
            return NotFetched(Reason.LOGIN_NEEDED, str(error), False, host=error.host)
        except OutboundError as error:
            # The first that fits: some are kinds of others.
            reason, is_final = next(
                told for kind, told in _REASONS.items() if isinstance(error, kind)
            )
            return NotFetched(reason, str(error), is_final, host=error.host)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._api.aclose()

    async def _look_up(self, url: httpx2.URL, wanted: Wanted) -> Record | None:
        """What Zendesk says of the file, where it can be asked and the answer matters."""
        if (
            self._keeps_flagged
            or wanted.ticket_id is None
            or not (self._account.has_token and self._account.owns(url))
        ):
            return None
        named_at = time.monotonic() - wanted.age_seconds
        record = await self._records.find(url, wanted.ticket_id, named_at)
        if record is None:
            return None
        host = origin_of(url).host
        if record.is_deleted:
            raise _Unfetched(NotFetched(Reason.GONE, "deleted at Zendesk", True, host=host))
        if record.scan == "malware_found":
            detail = "Zendesk's scan found malware in it"
            raise _Unfetched(NotFetched(Reason.FLAGGED, detail, True, host=host))
        if record.scan == "not_scanned" and record.age_seconds < SCAN_SECONDS:
            detail = "Zendesk has not scanned it yet"
            raise _Unfetched(NotFetched(Reason.SCAN_PENDING, detail, False, ASK_SCAN_AGAIN_SECONDS))
        return record

    async def _look_for_viruses(self, path: Path) -> None:
        if self._virus_check is None:
            return
        try:
            found = await self._virus_check.find(path)
        except VirusCheckError as error:
            is_final = isinstance(error, TooLargeToCheckError)
            raise _Unfetched(NotFetched(Reason.NOT_CHECKED, str(error), is_final)) from None
        if found is not None:
            raise _Unfetched(NotFetched(Reason.FLAGGED, f"clamd found {found}", True))

    async def _download(self, url: httpx2.URL, wanted: Wanted, spool: Spool) -> str:
        """Read the file; returns its content type."""
        async with self._client.ask(
            HTTPMethod.GET,
            url,
            credentials=self._account.credentials(url, *FILES),
            before_redirect=self._before_redirect,
        ) as answer:
            self._refuse_other_answers(answer)
            async for block in answer.blocks():
                await spool.write(block)
            await spool.flush()
            is_own = self._account.owns(answer.url)
            if is_own and is_login_page(spool.head, answer, wanted.content_type):
                raise self._login_needed(answer.host)
            return find_content_type(
                spool.head, answer.headers.get("content-type"), wanted.content_type
            )

    def _before_redirect(self, source: httpx2.URL, target: httpx2.URL) -> None:
        if self._account.owns(source) and leads_to_login(target):
            raise self._login_needed(origin_of(source).host)
        self._busy.check(origin_of(target).host)

    def _refuse_other_answers(self, answer: Answer) -> None:
        """See that an answer is a file, by its status."""
        status, host = answer.status, answer.host
        self._busy.heed(host, status, answer.headers)
        if status == HTTPStatus.OK:
            return
        is_own = self._account.owns(answer.url)
        if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and is_own):
            raise self._login_needed(host)
        detail = f"{host} answered {status}"
        if status in _GONE or status == HTTPStatus.FORBIDDEN:
            # A temporary link that ran out is made anew with the next try.
            is_final = answer.redirects == 0
            reason = Reason.REFUSED if status == HTTPStatus.FORBIDDEN else Reason.GONE
            raise _Unfetched(NotFetched(reason, detail, is_final, host=host))
        if status >= 500:
            raise _Unfetched(NotFetched(Reason.UNREACHABLE, detail, False, host=host))
        raise _Unfetched(NotFetched(Reason.REFUSED, detail, True, host=host))

    def _login_needed(self, host: str) -> _Unfetched:
        if self._account.has_token:
            detail, is_final = f"{host} wants a login in spite of the token", False
        else:
            detail, is_final = f"{host} wants a login, and no token is set", True
        return _Unfetched(NotFetched(Reason.LOGIN_NEEDED, detail, is_final, host=host))


def _compare_sizes(size: int, record: Record) -> None:
    if record.size not in (None, size):
        detail = f"it has {size} bytes here, and {record.size} by Zendesk's API"
        raise _Unfetched(NotFetched(Reason.INCOMPLETE, detail, is_final=False))
