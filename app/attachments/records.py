"""What Zendesk's API says of a file: whether its malware scan found something, and its true size.

https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_comments/#list-comments
"""

import asyncio
import math
import re
import time
from collections import OrderedDict
from datetime import UTC, datetime
from http import HTTPMethod, HTTPStatus
from typing import Self
from weakref import WeakValueDictionary

import attrs
import httpx2
import msgspec

from app.attachments.account import Account
from app.outbound.busy_hosts import BusyHostError, BusyHosts
from app.outbound.client import Answer, OutboundClient
from app.outbound.dates import http_date
from app.outbound.errors import OutboundError, UnreachableError
from app.outbound.rate_limits import RateLimits
from app.outbound.zendesk_limits import API

PATHS = ("/api/v2/tickets/",)
# Of a hundred comments each, the newest first: the email is one of them.
MOST_PAGES = 3

# One answer does for all files of an email; a scan that is under way is asked for each time.
REMEMBERED_SECONDS = 30.0
REMEMBERED_TICKETS = 1_000

_TICKET = re.compile(r"[0-9]{1,20}")
_TOKEN = re.compile(r"/attachments/token/([^/]+)")


class RefusedError(OutboundError):
    """The API refuses the token."""


@attrs.frozen
class Record:
    """What the API says of one file."""

    scan: str
    """`malware_found`, `malware_not_found`, `failed_to_scan` or `not_scanned`."""
    size: int | None
    """Bytes."""
    is_deleted: bool
    age_seconds: float
    """Since its comment was written, by Zendesk's own clock."""


@attrs.frozen
class _Attachment:
    content_url: str | None = None
    malware_scan_result: str | None = None
    size: int | None = None
    deleted: bool | None = None


@attrs.frozen
class _Comment:
    created_at: str | None = None
    attachments: list[_Attachment] = attrs.field(factory=list)


@attrs.frozen
class _Meta:
    has_more: bool = False
    after_cursor: str | None = None


@attrs.frozen
class _Page:
    comments: list[_Comment]
    meta: _Meta = attrs.field(factory=_Meta)


@attrs.frozen
class _Ticket:
    records: dict[str, Record] = attrs.field(factory=dict)
    asked_at: float = -math.inf
    """By the monotonic clock; as `until`."""
    until: float = -math.inf
    is_whole: bool = False
    """Whether the API was asked for as much as it ever is."""

    @classmethod
    def of(cls, records: dict[str, Record], asked_at: float, *, is_whole: bool) -> Self:
        is_scanned = all(record.scan != "not_scanned" for record in records.values())
        until = asked_at + (REMEMBERED_SECONDS if is_scanned else 0.0)
        return cls(records, asked_at, until, is_whole)

    def tells(self, token: str, named_at: float) -> bool:
        """Whether it need not be asked again for the file with this token. That there is none was
        certain when it was asked after the file was named; else an email that names many would
        cost as many lists of all comments."""
        now = time.monotonic()
        if token in self.records:
            return now < self.until
        is_recent = named_at <= self.asked_at and now < self.asked_at + REMEMBERED_SECONDS
        return self.is_whole and is_recent


class Records:
    """Asks the API of one account, and remembers what it said for a moment."""

    def __init__(
        self, account: Account, client: OutboundClient, busy: BusyHosts, limits: RateLimits
    ) -> None:
        self._account = account
        self._client = client
        self._busy = busy
        self._limits = limits
        self._tickets: OrderedDict[str, _Ticket] = OrderedDict()
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, url: httpx2.URL, ticket_id: str, named_at: float) -> Record | None:
        """The record of a file that came with a ticket; None where the API knows of none.

        Args:
            named_at: when it was known here that the file is there, by the monotonic clock.

        Raises:
            RefusedError: the token is not good for it.
            OutboundError: it cannot be asked now.
        """
        token = _TOKEN.match(url.path)
        if token is None or self._account.origin is None or not _TICKET.fullmatch(ticket_id):
            return None
        lock = self._asking.setdefault(ticket_id, asyncio.Lock())
        async with lock:
            known = self._tickets.get(ticket_id, _Ticket())
            if not known.tells(token[1], named_at):
                known = await self._list(ticket_id, token[1])
                self._tickets[ticket_id] = known
                self._tickets.move_to_end(ticket_id)
                if len(self._tickets) > REMEMBERED_TICKETS:
                    self._tickets.popitem(last=False)
            return known.records.get(token[1])

    async def _list(self, ticket_id: str, wanted: str) -> _Ticket:
        """The records of a ticket's files by their token, to the page that has the wanted one."""
        asked_at = time.monotonic()
        records: dict[str, Record] = {}
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page, now = await self._ask(ticket_id, cursor)
            for comment in page.comments:
                age = _seconds_since(comment.created_at, now)
                for attachment in comment.attachments:
                    if token := _token_of(attachment.content_url):
                        records[token] = Record(
                            scan=attachment.malware_scan_result or "",
                            size=attachment.size,
                            is_deleted=bool(attachment.deleted),
                            age_seconds=age,
                        )
            cursor = page.meta.after_cursor
            if wanted in records or not page.meta.has_more or cursor is None:
                break
        return _Ticket.of(records, asked_at, is_whole=wanted not in records)

    async def _ask(self, ticket_id: str, cursor: str | None) -> tuple[_Page, datetime]:
        """One page of a ticket's comments, and the time of the answer."""
        origin = self._account.origin
        assert origin is not None  # noqa: S101 - `find` saw to it
        self._busy.check(origin.host)
        if self._limits.refused_seconds > 0:
            raise RefusedError(f"{origin.host}'s API refuses the token", origin.host)
        if (seconds := self._limits.take(API)) > 0:
            raise BusyHostError(origin.host, seconds)
        url = httpx2.URL(
            scheme=origin.scheme,
            host=origin.host,
            port=origin.port,
            path=f"/api/v2/tickets/{ticket_id}/comments.json",
            params={
                "include_inline_images": "true",
                "sort": "-created_at",
                "page[size]": "100",
                **({"page[after]": cursor} if cursor else {}),
            },
        )
        async with self._client.ask(
            HTTPMethod.GET, url, credentials=self._account.credentials(url, *PATHS)
        ) as answer:
            self._limits.heed(API, answer.status, answer.headers)
            self._busy.heed(answer.host, answer.status, answer.headers)
            if answer.status == HTTPStatus.NOT_FOUND:
                return _Page([]), datetime.now(UTC)
            if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise RefusedError(f"{answer.host}'s API refuses the token", answer.host)
            if answer.status != HTTPStatus.OK:
                raise UnreachableError(f"{answer.host}'s API answered {answer.status}", answer.host)
            try:
                return msgspec.json.decode(await answer.read(), type=_Page), _date(answer)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise UnreachableError(
                    f"{answer.host}'s API answered what is no list of comments", answer.host
                ) from None


def _token_of(content_url: str | None) -> str | None:
    try:
        match = _TOKEN.match(httpx2.URL(content_url or "").path)
    except httpx2.InvalidURL:
        return None
    return match[1] if match else None


def _seconds_since(written_at: str | None, now: datetime) -> float:
    try:
        return (now - datetime.fromisoformat(written_at or "")).total_seconds()
    except (ValueError, TypeError):
        # Without a date, or without its zone: it is not known to be new.
        return math.inf


def _date(answer: Answer) -> datetime:
    """Zendesk's clock, so that ours may be wrong."""
    return http_date(answer.headers.get("date")) or datetime.now(UTC)
