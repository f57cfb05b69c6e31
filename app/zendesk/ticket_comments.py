"""From a ticket at Zendesk to its comments as the Intake compares them with the emails that are
here: which of them are emails, who really sent them, their texts and files.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from app.intake.comments import Comment
from app.intake.events import MAIL_CHANNELS
from app.models.fit import fit_text
from app.zendesk import tickets as api
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskNotFoundError
from app.zendesk.tickets import Ticket, Via
from app.zendesk.users import ROLES, User, Users

# A ticket of more comments is one that some program writes to.
MOST_PAGES = 50


@attrs.frozen
class Told:
    """What a ticket has."""

    comments: list[Comment]
    odd: list[Any]
    """Comments of a shape that nobody has seen."""


def is_mail(via: Via, ticket: Ticket) -> bool:
    """Whether a comment came by mail. Where it does not say, it came as its ticket did; in doubt
    that was by mail. A ticket of any channel may be answered by mail."""
    for one in (via, ticket.via):
        if channel := str(one.channel or "").strip().lower():
            return channel in MAIL_CHANNELS
    return True


async def read_comments(
    client: ZendeskClient, users: Users, ticket: Ticket, since: datetime
) -> Told | None:
    """The comments of a ticket that were written since a moment, the oldest first; None where there
    is no such ticket any more.

    Raises:
        ZendeskError: the class says why.
    """
    found: list[api.Comment] = []
    writers: dict[int, User] = {}
    odd: list[Any] = []
    after: str | None = None
    for _ in range(MOST_PAGES):
        try:
            commented = await api.list_comments(client, ticket.id, after)
        except ZendeskNotFoundError as error:
            if after is None:
                return None
            # What was read is compared all the same.
            odd.append({"ticket": ticket.id, "error": f"a later page of comments: {error}"})
            break
        new = [comment for comment in commented.page.items if comment.created_at >= since]
        found += new
        odd += commented.page.odd
        writers |= commented.users
        after = commented.page.after
        if after is None or (commented.page.items and not new):
            break
    senders = await _senders(client, ticket, found)
    made = []
    for comment in reversed(found):
        writer = writers.get(comment.author_id or 0)
        if writer is None and comment.author_id is not None:
            writer = await users.find(str(comment.author_id))
        made.append(_made(ticket, comment, writer, senders.get(comment.id, {})))
    return Told(made, odd)


async def _senders(
    client: ZendeskClient, ticket: Ticket, comments: Collection[api.Comment]
) -> dict[int, Mapping[str, Any]]:
    """Who really sent each comment; where it does not say so itself, its audit may."""
    senders = {comment.id: comment.via.sender for comment in comments}
    silent = {
        comment.audit_id: comment.id
        for comment in comments
        if comment.audit_id is not None
        and is_mail(comment.via, ticket)
        and not comment.via.sender.get("address")
    }
    after: str | None = None
    for _ in range(MOST_PAGES):
        if not silent:
            break
        page = await api.list_audits(client, ticket.id, after)
        for audit in page.items:
            if (comment_id := silent.pop(audit.id, None)) is not None:
                senders[comment_id] = audit.via.sender
        after = page.after
        if after is None:
            break
    return senders


def _made(
    ticket: Ticket, comment: api.Comment, writer: User | None, sender: Mapping[str, Any]
) -> Comment:
    is_by_staff = writer is not None and writer.role in ROLES
    return Comment(
        id=str(comment.id),
        ticket_id=str(ticket.id),
        written_at=comment.created_at,
        texts=(comment.body, comment.plain_body, comment.html_body),
        is_email=is_mail(comment.via, ticket) and not is_by_staff,
        subject=ticket.subject,
        from_email=_text(sender.get("address")) or (writer.email if writer else None),
        from_name=_text(sender.get("name")) or (writer.name if writer else None),
        body_text=comment.plain_body or comment.body,
        body_html=comment.html_body,
        files=_files(comment.attachments),
        record={
            "id": comment.id,
            "audit_id": comment.audit_id,
            "author_id": comment.author_id,
            "created_at": comment.created_at.isoformat(),
            "public": comment.public,
            "via": {"channel": comment.via.channel, "source": comment.via.source},
        },
    )


def _files(attachments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in attachment.items() if name not in _NOT_OF_THE_FILE}
        for attachment in attachments
        if attachment.get("deleted") is not True
    ]


# The first names the record of the API and no file.
_NOT_OF_THE_FILE = ("url", "thumbnails")


def _text(value: Any) -> str | None:
    return (fit_text(value).strip() or None) if isinstance(value, str) else None
