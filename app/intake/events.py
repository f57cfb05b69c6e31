"""Zendesk's event subscriptions: what an event says, and whether it is an email.

Events come to the same route as triggers and are told apart by their shape. Pure functions; what
is done about an event is the business of `waiting_files` and `erasures`. The shapes are those of
https://developer.zendesk.com/api-reference/webhooks/event-types/ticket-events/
"""

import hashlib
import re
from datetime import datetime, timedelta
from typing import Any

import attrs

from app.intake.attachments import read_attachments
from app.intake.received_at import parse_received_at
from app.models.fit import fit_text
from app.models.zendesk_event import ErasureKind, EventKind

PREFIX = "zen:event-type:"

LONGEST_ID = 64

# Zendesk links the files of a ticket's first email while it makes the ticket.
OPENING = timedelta(seconds=30)

_TICKET = re.compile(r"zen:ticket:(\d{1,64})\Z")

# As words or as numbers; what was suspended as spam and is recovered has a channel of its own.
# https://developer.zendesk.com/documentation/ticketing/reference-guides/via-types
MAIL_CHANNELS = ("mail", "email", "4", "recovered_from_suspended_tickets", "21")

ERASURES = {
    "ticket.permanently_deleted": ErasureKind.TICKET,
    "ticket.soft_deleted": ErasureKind.TRASHED_TICKET,
    "ticket.comment_redacted": ErasureKind.COMMENT,
    "ticket.attachment_redacted_from_comment": ErasureKind.ATTACHMENT,
}


@attrs.frozen(kw_only=True)
class Event:
    """An event, with ids as text, whatever they were sent as."""

    kind: EventKind
    name: str
    """Such as `ticket.comment_added`."""

    key: str | None
    """SHA-256 over account and event; None where the event has no id."""

    account_id: str | None
    ticket_id: str | None
    comment_id: str | None = None
    happened_at: datetime

    # Of an email.
    from_email: str = ""
    from_name: str | None = None
    subject: str = ""
    body_text: str | None = None
    body_html: str | None = None

    # Of a file, or of one that is erased.
    attachment: dict[str, Any] | None = None
    attachment_id: str | None = None
    is_of_opening: bool = False

    erasure: ErasureKind | None = None
    is_by_staff: bool = False


def is_event(fields: dict[str, Any]) -> bool:
    """Whether a payload has the envelope of an event, and not the fields of a trigger."""
    name = fields.get("type")
    if isinstance(name, str) and name.strip().lower().startswith(PREFIX):
        return True
    return "zendesk_event_version" in fields and "ticket_id" not in fields


def read_event(fields: dict[str, Any], now: datetime) -> Event:
    """Read an event. Whatever is missing or odd in it is left out; in doubt it is an email."""
    name = _enum(fields.get("type")).removeprefix(PREFIX)
    detail, event = _object(fields.get("detail")), _object(fields.get("event"))
    comment = _object(event.get("comment"))
    author = _object(comment.get("author"))
    ticket_id = _id(detail.get("id")) if name.startswith("ticket.") else None
    if ticket_id is None and (named := _TICKET.match(_text(fields.get("subject")) or "")):
        ticket_id = named[1]
    read = Event(
        kind=EventKind.OTHER,
        name=name,
        key=event_key(_id(fields.get("account_id")), _id(fields.get("id"))),
        account_id=_id(fields.get("account_id")),
        ticket_id=ticket_id,
        comment_id=_id(comment.get("id")),
        happened_at=_time(fields.get("time"), now),
        is_by_staff=_is_true(author.get("is_staff")),
    )
    match name:
        case "ticket.created" if ticket_id and _is_mail(detail):
            return _opening(read, detail, now)
        case "ticket.comment_added" if (
            ticket_id and not read.is_by_staff and _is_mail(comment if "via" in comment else detail)
        ):
            return _comment(read, detail, comment)
        case "ticket.attachment_linked_to_comment" if ticket_id:
            return _attachment(read, detail, comment, now)
        case _ if name in ERASURES and ticket_id:
            item = _object(comment.get("attachment"))
            return attrs.evolve(
                read,
                kind=EventKind.ERASURE,
                erasure=ERASURES[name],
                attachment=item,
                attachment_id=_id(item.get("id")),
            )
        case "ticket.undeleted" if ticket_id:
            return attrs.evolve(read, kind=EventKind.RESTORE)
        case _:
            return read


def event_key(account_id: str | None, event_id: str | None) -> str | None:
    """By which an event is recognised when it comes again."""
    if event_id is None:
        return None
    digest = hashlib.sha256()
    for part in ("event", account_id or "", event_id):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def _opening(read: Event, detail: dict[str, Any], now: datetime) -> Event:
    """The email that made a ticket: its text is the ticket's description."""
    requester = _object(detail.get("requester"))
    sender = _sender(_object(detail.get("via")))
    return attrs.evolve(
        read,
        kind=EventKind.EMAIL,
        comment_id=None,
        happened_at=_time(detail.get("created_at") or read.happened_at.isoformat(), now),
        from_email=_text(sender.get("address")) or _text(requester.get("email")) or "",
        from_name=_text(sender.get("name")) or _text(requester.get("name")),
        subject=_text(detail.get("subject")) or "",
        body_text=_text(detail.get("description")),
    )


def _comment(read: Event, detail: dict[str, Any], comment: dict[str, Any]) -> Event:
    author = _object(comment.get("author"))
    sender = _sender(_object(comment.get("via")))
    return attrs.evolve(
        read,
        kind=EventKind.EMAIL,
        from_email=_text(sender.get("address")) or _text(author.get("email")) or "",
        from_name=_text(sender.get("name")) or _text(author.get("name")),
        subject=_text(detail.get("subject")) or "",
        body_text=_text(comment.get("body")) or _text(comment.get("plain_body")),
        body_html=_text(comment.get("html_body")),
    )


def _attachment(
    read: Event, detail: dict[str, Any], comment: dict[str, Any], now: datetime
) -> Event:
    files = read_attachments(comment.get("attachment")).files
    if not files:
        return read
    created_at = _time(detail.get("created_at"), now)
    return attrs.evolve(
        read,
        kind=EventKind.ATTACHMENT,
        attachment=files[0],
        attachment_id=_id(files[0].get("id")),
        is_of_opening=abs(read.happened_at - created_at) <= OPENING,
    )


def _sender(via: dict[str, Any]) -> dict[str, Any]:
    # https://developer.zendesk.com/documentation/ticketing/reference-guides/via-object-reference/
    return _object(_object(via.get("source")).get("from"))


def _is_mail(of: dict[str, Any]) -> bool:
    """Whether it came by mail; in doubt it did."""
    via = of.get("via")
    channel = _enum(via.get("channel") if isinstance(via, dict) else via)
    return not channel or channel in MAIL_CHANNELS


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    text = fit_text(value)
    return text if text and not text.isspace() else None


def _enum(value: Any) -> str:
    return (_text(value) or "").strip().lower()


def _is_true(value: Any) -> bool:
    return value is True or _enum(value) == "true"


def _id(value: Any) -> str | None:
    """Ids are numbers at one place of an event and text at another."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, int) else (_text(value) or "").strip()
    return text[:LONGEST_ID] or None


def _time(value: Any, now: datetime) -> datetime:
    """A time; `now` for one that is missing, unreadable or in the future."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return now
    return parse_received_at(value, now)
