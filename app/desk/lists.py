"""What the lists of the desk are made of: rows of cells, a page at a time, with check boxes where
something can be done to many. `templates/lists.html` draws them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import attrs
from litestar.exceptions import ValidationException

from app.api.search import Cursor, CursorError
from app.desk.addresses import address
from app.i18n.formats import number
from app.i18n.texts import gettext as _
from app.models.fit import in_utc

LISTED = 50
COUNTED_AT_MOST = 10_000
# Of what is to be done to many.
SHOWN_FIRST = 10
LARGEST_FORM_OF_IDS = 64 * 1024
# Proxies wait for an answer for half a minute and more. What is left is done by asking again.
LONGEST_SECONDS = 20.0

Found = TypeVar("Found")
Act = TypeVar("Act")
Id = TypeVar("Id")


@attrs.frozen(kw_only=True)
class Cell:
    """What stands in one cell; all of it is text."""

    text: object = ""
    href: str | None = None
    """Where the text leads."""
    at: datetime | None = None
    """A time, instead of the text."""
    note: str | None = None
    """A second line."""
    is_bad: bool = False


@attrs.frozen
class Row:
    """One row."""

    id: object
    """The value of its check box."""
    name: str
    """How it is called to those who do not see the table."""
    cells: Sequence[Cell]


@attrs.frozen(kw_only=True)
class Listing:
    """One page of a list."""

    columns: Sequence[str]
    rows: Sequence[Row]
    is_checked: bool = False
    """Whether rows have check boxes."""
    first: str | None = None
    """Where the list begins; None: here."""
    following: str | None = None
    """Where it goes on."""


def read_place(after: str | None) -> Cursor | None:
    """After which row a page begins.

    Raises:
        ValidationException: it is none of our places.
    """
    try:
        return Cursor.decode(after) if after else None
    except CursorError as wrong:
        raise ValidationException(f"after: {wrong}") from wrong


def page_address(path: str, **query: object) -> str:
    """The address of a page of a list; what is None is left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return address(path) + (f"?{urlencode(given)}" if given else "")


def listing(
    path: str,
    found: Sequence[Found],
    *,
    columns: Sequence[str],
    row: Callable[[Found], Row],
    place: Callable[[Found], tuple[datetime | None, UUID]],
    after: Cursor | None,
    is_checked: bool = False,
    **query: object,
) -> Listing:
    """A page of what was found.

    Args:
        found: one more than LISTED, where there are more.
        place: where something stands in the list; what has no moment is followed by nothing.
        after: where the page begins.
        query: what the addresses of the other pages have to have.
    """
    following = None
    if len(found) > LISTED:
        moment, row_id = place(found[LISTED - 1])
        if moment is not None:
            last = Cursor(moment, row_id).encode()
            following = page_address(path, **query, after=last)
    return Listing(
        columns=columns,
        rows=[row(one) for one in found[:LISTED]],
        is_checked=is_checked,
        first=page_address(path, **query) if after else None,
        following=following,
    )


def capitalized(text: str) -> str:
    """A text with a capital letter first. Where other languages have more of them, these stay."""
    return text[:1].upper() + text[1:]


def counted(many: int) -> str:
    """A count that stops at COUNTED_AT_MOST."""
    return number(many) + ("+" if many == COUNTED_AT_MOST else "")


@attrs.frozen(kw_only=True)
class Asked(Generic[Act, Id]):
    """What the form of a list asks for: something to be done to rows that are checked, or to all
    that a search finds."""

    action: Act
    text: str | None
    """None: to those that are checked."""
    ids: Sequence[Id]
    until: datetime | None

    @classmethod
    def read(
        cls, given: Any, action: Callable[[str], Act], row_id: Callable[[str], Id]
    ) -> "Asked[Act, Id]":
        """Read it of the fields of a form or an address.

        Raises:
            ValidationException: they are not ours.
        """
        is_checked = given.get("which") == "checked"
        try:
            # A field may be a file.
            until = str(given.get("until") or "")
            return cls(
                action=action(given.get("action", "")),
                text=None if is_checked else str(given.get("q", "")),
                ids=[row_id(str(one)) for one in given.getall("id", [])] if is_checked else [],
                until=in_utc(datetime.fromisoformat(until)) if until else None,
            )
        except (ValueError, OverflowError) as wrong:
            raise ValidationException(
                _("the form is not one of ours: %(wrong)s", wrong=wrong)
            ) from wrong


@attrs.frozen
class Preview:
    """What would happen to those that are meant."""

    total: int
    cannot: Mapping[str, int]
    """To so many nothing would be done, by why."""

    @property
    def can(self) -> int:
        """To so many it would be done."""
        return self.total - sum(self.cannot.values())


def done_of(given: Mapping[str, str], names: Mapping[str, str]) -> str | None:
    """What was done on the page before, told by numbers in the address."""
    told = [
        f"{_(name)}: {number(int(many))}."
        for key, name in names.items()
        if (many := given.get(key, "")).isascii() and many.isdecimal() and len(many) < 10
    ]
    return " ".join(told) or None
