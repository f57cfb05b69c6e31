"""Zendesk's placeholders: which there are, and what their values may hold.

From Zendesk's "Placeholder reference for business rules",
https://support.zendesk.com/hc/en-us/articles/4408886858138, read in November 2026.
"""

import re
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache

from app.i18n.texts import N_


class Holds(StrEnum):
    """What a value may hold."""

    SAFE = N_("neither quotes nor line breaks")
    LINE = N_("quotes and backslashes")
    TEXT = N_("quotes, backslashes and line breaks")
    HTML = N_("HTML")


_SAFE = Holds.SAFE
_LINE = Holds.LINE
_TEXT = Holds.TEXT

_ORGANIZATION = {
    **dict.fromkeys(("id", "is_shared", "is_shared_comments"), _SAFE),
    **dict.fromkeys(("name", "tags", "external_id"), _LINE),
    **dict.fromkeys(("details", "notes"), _TEXT),
}
_USER = {
    **dict.fromkeys(("id", "email", "language", "phone", "time_zone", "role", "locale"), _SAFE),
    **dict.fromkeys(("name", "first_name", "last_name", "external_id", "tags"), _LINE),
    "extended_role": _LINE,
    **dict.fromkeys(("details", "notes", "signature"), _TEXT),
    **{f"organization.{name}": holds for name, holds in _ORGANIZATION.items()},
}
USERS = ("ticket.requester", "ticket.assignee", "ticket.submitter", "current_user")
COMMENT = {
    **dict.fromkeys(("id", "created_at", "created_at_with_time", "is_public"), _SAFE),
    "value": _TEXT,
    "value_rich": Holds.HTML,
    "attachments": _TEXT,
    **{f"author.{name}": holds for name, holds in _USER.items()},
}
ATTACHMENT = {"filename": _LINE, "url": _SAFE}
COMMENTS = ("ticket.comments", "ticket.public_comments")
COMMENT_OBJECTS = (*COMMENTS, "ticket.latest_comment", "ticket.latest_public_comment")

_TICKET = {
    **dict.fromkeys(
        (
            *("id", "created_at", "created_at_with_time", "created_at_with_timestamp"),
            *("updated_at", "updated_at_with_time", "updated_at_with_timestamp"),
            *("due_date", "due_date_with_timestamp", "in_business_hours", "link", "url"),
            *("encoded_id", "priority", "status", "status_category", "ticket_type", "via"),
        ),
        _SAFE,
    ),
    **dict.fromkeys(
        (
            *("account", "brand.name", "cc_names", "email_cc_names", "follower_names"),
            *("follower_reply_type_message", "current_holiday_name", "external_id", "group.name"),
            *("custom_status", "tags", "ticket_form", "title"),
        ),
        _LINE,
    ),
    **dict.fromkeys(("description", "verbatim_description"), _TEXT),
    "latest_comment_html": Holds.HTML,
    "latest_public_comment_html": Holds.HTML,
    "latest_comment_rich": Holds.HTML,
    "latest_public_comment_rich": Holds.HTML,
    "latest_comment_formatted": Holds.HTML,
    "latest_public_comment_formatted": Holds.HTML,
    "comments_formatted": Holds.HTML,
    "public_comments_formatted": Holds.HTML,
    "ccs": _LINE,
    **{f"organization.{name}": holds for name, holds in _ORGANIZATION.items()},
}
_SATISFACTION = (
    *("survey_section", "survey_url", "rating_section", "rating_url", "current_rating"),
    *("positive_rating_url", "negative_rating_url", "current_comment"),
)
KNOWN: dict[str, Holds] = {
    **{f"ticket.{name}": holds for name, holds in _TICKET.items()},
    **{f"{user}.{name}": holds for user in USERS for name, holds in _USER.items()},
    **dict.fromkeys(COMMENT_OBJECTS, _TEXT),
    **{f"{one}.{name}": holds for one in COMMENT_OBJECTS for name, holds in COMMENT.items()},
    **{f"satisfaction.{name}": _TEXT for name in _SATISFACTION},
}
_FAMILIES = (
    re.compile(r"ticket\.ticket_field_(?:option_title_)?\d+(?:\.(?:id|name))?"),
    re.compile(
        rf"(?:{'|'.join(map(re.escape, USERS))}|ticket\.organization)"
        r"\.(?:organization\.)?custom_fields\.[\w-]+(?:\.(?:id|title|name))?"
    ),
    re.compile(r"custom_objects\.[\w-]+(?:\.custom_fields\.[\w-]+)?\.?[\w-]+"),
    re.compile(r"account\.incoming_phone_number_\d+"),
    # Dynamic content: https://support.zendesk.com/hc/en-us/articles/4408882999194
    re.compile(r"dc\.[\w-]+"),
)
# Names that are taken for a placeholder's, and are none.
_MEANT = {
    "ticket.subject": "ticket.title",
    "ticket.name": "ticket.title",
    "ticket.number": "ticket.id",
    "ticket.ticket_id": "ticket.id",
    "ticket.body": "ticket.latest_comment.value",
    "ticket.text": "ticket.latest_comment.value",
    "ticket.message": "ticket.latest_comment.value",
    "ticket.comment": "ticket.latest_comment.value",
    "ticket.comment.body": "ticket.latest_comment.value",
    "ticket.comment.value": "ticket.latest_comment.value",
    "ticket.latest_comment.body": "ticket.latest_comment.value",
    "ticket.latest_comment.text": "ticket.latest_comment.value",
    "ticket.latest_comment.html_body": "ticket.latest_comment_html",
    "ticket.latest_comment.html": "ticket.latest_comment_html",
    "ticket.latest_comment.created_at_with_timestamp": "ticket.updated_at_with_timestamp",
    "ticket.email": "ticket.requester.email",
    "ticket.from": "ticket.requester.email",
    "ticket.from_email": "ticket.requester.email",
    "ticket.sender": "ticket.requester.email",
    "ticket.created": "ticket.created_at_with_timestamp",
    "requester.email": "ticket.requester.email",
    "requester.name": "ticket.requester.name",
    "user.email": "ticket.requester.email",
    "user.name": "ticket.requester.name",
    "sender.email": "ticket.requester.email",
    "comment.value": "ticket.latest_comment.value",
    "comment.body": "ticket.latest_comment.value",
}
_OF_A_LIST = re.compile(r"\[[^\]]*\]|\.(?:first|last)(?=\.|$)")


def normal(path: str) -> str:
    """A path without what chooses one of a list."""
    return _OF_A_LIST.sub("", path)


def holds(path: str) -> Holds | None:
    """What a placeholder's value may hold; None for one that Zendesk does not know."""
    path = normal(path)
    if path in KNOWN:
        return KNOWN[path]
    if path.endswith(".size"):
        return _SAFE
    if any(family.fullmatch(path) for family in _FAMILIES):
        return _TEXT
    return None


@lru_cache(maxsize=1_000)
def nearest(path: str) -> str | None:
    """The placeholder that is meant by an unknown one, as far as its name tells."""
    path = normal(path)
    lower = path.lower().replace("-", "_")
    if lower in KNOWN:
        return lower
    if lower in _MEANT:
        return _MEANT[lower]
    close = get_close_matches(lower, KNOWN, n=1, cutoff=0.75)
    return close[0] if close else None
