"""Lists of Zendesk's API, item by item: what has the shape that we know, and what has not."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

import attrs
import msgspec

from app.zendesk.errors import ZendeskShapeError

T = TypeVar("T")

# Without a zone it could not be compared with others.
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


@attrs.frozen
class Page(Generic[T]):
    """One page of a list."""

    items: list[T]
    odd: list[Any]
    """Items of a shape that nobody has seen, as they came."""
    after: str | None
    """The cursor of the next page; None where there is none."""


def read_page(content: Any, key: str, kind: type[T]) -> Page[T]:
    """The items under a key, with the cursor of what follows.

    https://developer.zendesk.com/api-reference/introduction/pagination/#using-cursor-pagination

    Raises:
        ZendeskShapeError: there is no such list.
    """
    items, odd = read_items(content, key, kind)
    meta = content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    after = meta.get("after_cursor") if meta.get("has_more") else None
    return Page(items, odd, after if isinstance(after, str) and after else None)


def read_items(content: Any, key: str, kind: type[T]) -> tuple[list[T], list[Any]]:
    """The items under a key, and those of another shape.

    Raises:
        ZendeskShapeError: there is no such list.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise ZendeskShapeError(f"Zendesk's API answers no list of {key}: see MAILROOM_ZENDESK_URL")
    items, odd = [], []
    for raw in found:
        try:
            items.append(read_item(raw, kind))
        except ZendeskShapeError:
            odd.append(raw)
    return items, odd


def read_item(raw: Any, kind: type[T]) -> T:
    """One item as an attrs class.

    Raises:
        ZendeskShapeError: it has another shape; the message names the field and no value.
    """
    try:
        return msgspec.convert(raw, type=kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ZendeskShapeError(f"Zendesk's API answers an odd {kind.__name__}: {error}") from error


def as_object(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one in place of what is none."""
    return value if isinstance(value, dict) else {}
