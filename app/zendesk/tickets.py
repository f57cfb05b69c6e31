"""Tickets of the account, with their comments: what emails became at Zendesk.

https://developer.zendesk.com/api-reference/ticketing/ticket-management/incremental_exports/
https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_comments/
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from app.zendesk.client import ZendeskClient
from app.zendesk.items import Moment, Page, as_object, read_item, read_items, read_page
from app.zendesk.users import User, read_user

COMMENTS_A_PAGE = "100"
DELETED = "deleted"


@attrs.frozen
class Via:
    """By which way something came.

    https://developer.zendesk.com/documentation/ticketing/reference-guides/via-object-reference/
    """

    channel: str | int | None = None
    source: dict[str, Any] | None = None

    @property
    def sender(self) -> Mapping[str, Any]:
        """Of an email: `address`, `name` and `original_recipients` of who really sent it."""
        return as_object(as_object(self.source).get("from"))


@attrs.frozen
class Ticket:
    """A ticket, as far as it matters whether its emails are here."""

    id: int
    created_at: Moment
    updated_at: Moment
    status: str = ""
    subject: str | None = None
    via: Via = attrs.field(factory=Via)
    generated_timestamp: int | None = None
    """By which exports are sorted: seconds since 1970."""


@attrs.frozen
class Exported:
    """One page of the export of tickets."""

    page: Page[Ticket]
    is_end: bool
    """Whether these are the last ones so far; `page.after` is where further ones will follow."""


@attrs.frozen
class Comment:
    """What somebody wrote on a ticket, by whichever way."""

    id: int
    created_at: Moment
    author_id: int | None = None
    body: str | None = None
    html_body: str | None = None
    plain_body: str | None = None
    public: bool = True
    audit_id: int | None = None
    via: Via = attrs.field(factory=Via)
    attachments: list[dict[str, Any]] = attrs.field(factory=list)


@attrs.frozen
class Commented:
    """One page of a ticket's comments."""

    page: Page[Comment]
    users: dict[int, User]
    """Who wrote them, by their ids; somebody may be missing."""


@attrs.frozen
class Audit:
    """One change of a ticket."""

    id: int
    via: Via = attrs.field(factory=Via)


async def export_tickets(
    client: ZendeskClient, *, start: datetime | None = None, after: str | None = None
) -> Exported:
    """The tickets that changed since a moment, or after a cursor, in the order of their changes.
    Zendesk leaves out those of the last minute.

    Raises:
        ZendeskRefusedError: it does not know the cursor.
        ZendeskError: the class says why.
    """
    params = {"cursor": after} if after else {"start_time": str(int(start.timestamp()))}  # type: ignore[union-attr]
    content = await client.get("/api/v2/incremental/tickets/cursor.json", params)
    tickets, odd = read_items(content, "tickets", Ticket)
    cursor = content.get("after_cursor")
    return Exported(
        Page(tickets, odd, cursor if isinstance(cursor, str) and cursor else None),
        is_end=content.get("end_of_stream") is not False,
    )


async def get_ticket(client: ZendeskClient, ticket_id: str) -> Ticket:
    """One ticket.

    Raises:
        ZendeskNotFoundError: there is no such ticket, or it is in the trash.
        ZendeskError: the class says why.
    """
    content = await client.get(f"/api/v2/tickets/{ticket_id}.json")
    return read_item(as_object(content).get("ticket"), Ticket)


async def list_comments(
    client: ZendeskClient, ticket_id: int, after: str | None = None
) -> Commented:
    """A page of a ticket's comments, the newest first.

    Raises:
        ZendeskNotFoundError: there is no such ticket any more.
        ZendeskError: the class says why.
    """
    content = await client.get(
        f"/api/v2/tickets/{ticket_id}/comments.json",
        {
            "include": "users",
            "include_inline_images": "true",
            "sort": "-created_at",
            "page[size]": COMMENTS_A_PAGE,
            **({"page[after]": after} if after else {}),
        },
    )
    users = {}
    for raw in as_object(content).get("users") or []:
        user, user_id = read_user(raw), as_object(raw).get("id")
        if user is not None and isinstance(user_id, int):
            users[user_id] = user
    return Commented(read_page(content, "comments", Comment), users)


async def list_audits(
    client: ZendeskClient, ticket_id: int, after: str | None = None
) -> Page[Audit]:
    """A page of a ticket's audits.

    Raises:
        ZendeskError: the class says why.
    """
    params = {"page[size]": COMMENTS_A_PAGE, **({"page[after]": after} if after else {})}
    content = await client.get(f"/api/v2/tickets/{ticket_id}/audits.json", params)
    return read_page(content, "audits", Audit)
