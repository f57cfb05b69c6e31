"""What the routes of the fake's API have in common: what was asked, what is answered, lists with
cursors, and the time as Zendesk writes it."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import attrs

from zendesk.account import Account

BASE = "https://example.zendesk.com"
LARGEST_PAGE = 100


@attrs.frozen
class Asked:
    """One request to the API."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    found: dict[str, str] = attrs.field(factory=dict)
    """What the route's pattern found in the path."""

    @property
    def content(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body or b"null")


@attrs.frozen
class Answer:
    """What the API answers: a status, and JSON or None."""

    status: int
    content: Any = None
    headers: dict[str, str] = attrs.field(factory=dict)


Respond = Callable[[Account, Asked], Answer]


@attrs.frozen
class Route:
    """A method and a pattern of paths, without `/api/v2` and `.json`."""

    method: str
    pattern: re.Pattern[str]
    respond: Respond

    @classmethod
    def of(cls, method: str, pattern: str, respond: Respond) -> "Route":
        return cls(method, re.compile(pattern), respond)


NOT_FOUND = Answer(404, {"error": "RecordNotFound", "description": "Not found"})
UNAUTHORIZED = Answer(401, {"error": "Couldn't authenticate you"})


def refused(name: str, description: str, status: int = 422) -> Answer:
    """An answer to what the API does not take."""
    return Answer(status, {"error": name, "description": description})


def parse_query(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


def when(moment: datetime) -> str:
    """A time as Zendesk writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_cursor(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def from_cursor(cursor: str) -> str:
    """Raises ValueError: it is none."""
    return base64.b64decode(cursor, validate=True).decode()


def page(
    asked: Asked,
    key: str,
    items: Sequence[Any],
    show: Callable[[Any], dict[str, Any]],
    identify: Callable[[Any], str],
) -> Answer:
    """One page of a list, by the cursor of its last item: what is added in front moves nothing."""
    size = min(int(asked.query.get("page[size]", LARGEST_PAGE)), LARGEST_PAGE)
    begin = 0
    if after := asked.query.get("page[after]"):
        try:
            last = from_cursor(after).partition(",")[0]
            begin = next(i for i, item in enumerate(items) if identify(item) == last) + 1
        except (ValueError, StopIteration):
            return refused("InvalidCursor", "page[after] is not valid", 400)
    shown = items[begin : begin + size]
    meta: dict[str, Any] = {"has_more": begin + size < len(items)}
    content: dict[str, Any] = {key: [show(item) for item in shown], "meta": meta}
    if shown and meta["has_more"]:
        meta["after_cursor"] = to_cursor(f"{identify(shown[-1])},desc")
        content["links"] = {
            "next": f"{BASE}{asked.path}?page[after]={meta['after_cursor']}",
        }
    return Answer(200, content)
