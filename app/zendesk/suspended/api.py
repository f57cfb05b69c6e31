"""Suspended mail, as Zendesk's API tells it, and its recovery.

https://developer.zendesk.com/api-reference/ticketing/tickets/suspended_tickets/
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPMethod
from typing import Any

import attrs

from app.models.fit import fit_text
from app.setting_groups.suspension import cause_name
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskNotFoundError, ZendeskShapeError
from app.zendesk.items import Page, as_object, read_page

PAGE_SIZE = "100"
RECOVERED_AT_ONCE = 100
KEPT_BY_ZENDESK = timedelta(days=14)
PATH = "/api/v2/suspended_tickets"
# What fits a bigint.
_LARGEST_ID = 2**63 - 1
_MOST_DIGITS = len(str(_LARGEST_ID))


@attrs.frozen
class Suspended:
    """One suspended mail. What Zendesk left out, or wrote in an odd way, is empty."""

    id: int
    cause: str
    """Zendesk's name for it, such as `spam`."""
    cause_text: str
    sender: str
    sender_name: str | None
    subject: str
    ticket_id: int | None
    suspended_at: datetime
    raw: dict[str, Any] = attrs.field(repr=False)
    """As it came."""

    @property
    def deleted_at(self) -> datetime:
        """When Zendesk deletes it."""
        return self.suspended_at + KEPT_BY_ZENDESK


async def list_suspended(client: ZendeskClient) -> AsyncIterator[Page[Suspended]]:
    """All that is suspended, page by page. What has no id is among the odd ones.

    Raises:
        ZendeskError: the class says why; what was given out before is not all.
    """
    after: str | None = None
    while True:
        params = {"page[size]": PAGE_SIZE, **({"page[after]": after} if after else {})}
        raw = read_page(await client.get(PATH, params), "suspended_tickets", dict)
        read = [(item, read_suspended(item)) for item in raw.items]
        odd = [*raw.odd, *(item for item, found in read if found is None)]
        yield Page([found for _, found in read if found is not None], odd, raw.after)
        if raw.after is None:
            return
        if raw.after == after:
            # What follows is not known, so nothing may be taken for gone.
            raise ZendeskShapeError("Zendesk's list of suspended tickets does not get on")
        after = raw.after


async def get_suspended(client: ZendeskClient, suspended_id: int) -> Suspended | None:
    """One of them; None where Zendesk has it no longer.

    Raises:
        ZendeskError: the class says why.
    """
    try:
        content = await client.get(f"{PATH}/{suspended_id}")
    except ZendeskNotFoundError:
        return None
    found = read_suspended(as_object(content).get("suspended_ticket"))
    if found is None:
        raise ZendeskShapeError("Zendesk's API answers an odd suspended ticket")
    return found


async def recover(client: ZendeskClient, ids: Sequence[int]) -> set[int]:
    """Have tickets made of them, at most a hundred. Returns those that Zendesk says it could not.

    By this path and not that of a single one, for which Zendesk makes the token's owner the
    requester.

    Raises:
        ZendeskError: the class says why.
    """
    params = {"ids": ",".join(map(str, ids))}
    content = as_object(await client.ask(HTTPMethod.PUT, f"{PATH}/recover_many", params=params))
    failed = content.get("suspended_tickets")
    found = map(read_suspended, failed if isinstance(failed, list) else [])
    return {one.id for one in found if one is not None}


def read_suspended(raw: Any) -> Suspended | None:
    """One of a list; None where it has no id by which it could be asked for."""
    item = as_object(raw)
    number = _number(item.get("id"))
    if number is None:
        return None
    author = as_object(item.get("author"))
    source = as_object(as_object(as_object(item.get("via")).get("source")).get("from"))
    cause = _text(item.get("cause"))
    return Suspended(
        id=number,
        cause=cause_name(_number(item.get("cause_id"))),
        cause_text=cause,
        sender=_text(source.get("address")) or _text(author.get("email")),
        sender_name=_text(source.get("name")) or _text(author.get("name")) or None,
        subject=_text(item.get("subject")),
        ticket_id=_number(item.get("ticket_id")),
        suspended_at=_moment(item.get("created_at")),
        raw=dict(item),
    )


def _text(value: Any) -> str:
    return fit_text(value).strip() if isinstance(value, str) else ""


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS:
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _LARGEST_ID else None


def _moment(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        # It is not known to be older.
        return datetime.now(UTC)
