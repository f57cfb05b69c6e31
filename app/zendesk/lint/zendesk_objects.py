"""The objects that Zendesk gives a template: a ticket, its people, its comments."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.zendesk.lint.hostile_tickets import Ticket
from app.zendesk.lint.placeholders import USERS

TICKET_ID = "35436"
WHEN = "2026-11-23T14:05Z"
DAY = "November 23, 2026"
DAY_AND_TIME = "November 23, 14:05"


class _Told(Mapping[str, Any]):
    """What is a text by itself and has properties besides, as Zendesk's objects."""

    def __init__(self, text: str, properties: Mapping[str, Any]) -> None:
        self._text = text
        self._properties = properties

    def __str__(self) -> str:
        return self._text

    def __getitem__(self, key: str) -> Any:
        return self._properties[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties)

    def __len__(self) -> int:
        return len(self._properties)


class _Anything(_Told):
    """An object that has any property, each with one text."""

    def __init__(self, text: str) -> None:
        super().__init__(text, {})

    def __getitem__(self, key: str) -> Any:
        return _Anything(self._text) if isinstance(key, str) else self._text


class _WithFields(_Told):
    """A ticket, with custom fields of any number."""

    def __init__(self, properties: Mapping[str, Any], text: str) -> None:
        super().__init__("", properties)
        self._field = text

    def __getitem__(self, key: str) -> Any:
        if isinstance(key, str) and key.startswith("ticket_field_"):
            return _Anything(self._field)
        return super().__getitem__(key)


def template_data(ticket: Ticket) -> dict[str, Any]:
    """What a template reads, by the names that it begins with."""
    user = _user(ticket)
    return {
        "ticket": _WithFields(_ticket(ticket, user), ticket.text),
        "current_user": user,
        "satisfaction": _Anything(ticket.text),
        "dc": _Anything(ticket.text),
        "account": _Anything("+4930123"),
        "custom_objects": _Anything(ticket.text),
    }


def _organization(ticket: Ticket) -> dict[str, Any]:
    return {"id": "77", "name": ticket.name, "details": ticket.text, "notes": ticket.text}


def _user(ticket: Ticket) -> dict[str, Any]:
    first, _, last = ticket.name.partition(" ")
    return {
        "id": "5871",
        "name": ticket.name,
        "first_name": first,
        "last_name": last,
        "email": ticket.email,
        "language": "English",
        "locale": "en-US",
        "phone": "+49301234",
        "role": "End user",
        "extended_role": "End user",
        "time_zone": "Berlin",
        "tags": "vip",
        "external_id": "E-1",
        "details": ticket.text,
        "notes": ticket.text,
        "signature": ticket.text,
        "organization": _organization(ticket),
        "custom_fields": _Anything(ticket.text),
    }


def _comment(ticket: Ticket, user: dict[str, Any]) -> _Told:
    return _Told(
        ticket.text,
        {
            "id": "9001",
            "value": ticket.text,
            "value_rich": ticket.html,
            "created_at": DAY,
            "created_at_with_time": DAY_AND_TIME,
            "is_public": True,
            "author": user,
            "attachments": [{"filename": file.filename, "url": file.url} for file in ticket.files],
        },
    )


def _ticket(ticket: Ticket, user: dict[str, Any]) -> dict[str, Any]:
    comment = _comment(ticket, user)
    return {
        "id": TICKET_ID,
        "title": ticket.title,
        "description": ticket.text,
        "verbatim_description": ticket.text,
        "created_at": DAY,
        "created_at_with_time": DAY_AND_TIME,
        "created_at_with_timestamp": WHEN,
        "updated_at": DAY,
        "updated_at_with_time": DAY_AND_TIME,
        "updated_at_with_timestamp": WHEN,
        "url": f"example.zendesk.com/agent/tickets/{TICKET_ID}",
        "link": f"https://example.zendesk.com/agent/tickets/{TICKET_ID}",
        "via": "Mail",
        "status": "New",
        "priority": "Normal",
        "ticket_type": "Question",
        "tags": "a b",
        "account": "Example",
        "external_id": "E-7",
        "encoded_id": "AB1-CD2",
        "brand": {"name": ticket.name},
        "group": {"name": "Support"},
        "organization": _organization(ticket),
        "comments": [comment],
        "public_comments": [comment],
        "ccs": [user],
        **{path.partition(".")[2]: user for path in USERS if "." in path},
        **{f"latest{which}_comment": comment for which in ("", "_public")},
        **{
            f"latest{which}_comment_{form}": ticket.html
            for which in ("", "_public")
            for form in ("html", "rich", "formatted")
        },
    }
