"""The fields of the templates in their order: what tells where a text ends that holds quotes.

A field's value reaches to where the next field of its template begins. Templates are known from
MAILROOM_WEBHOOK_FIELDS, or else from the payloads that came whole; before any came, from the order
in which the documentation names the fields.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from typing import Any, TypeAlias

import attrs

from app.intake.broken_json import (
    BLANKS,
    COMMAS,
    ESCAPED,
    AmbiguousError,
    Mended,
    mend,
    mend_value,
    read_unescaped,
    without_doubt,
)
from app.models.webhook_schemas import ZendeskWebhookEmail

MOST_ORDERS = 16
MOST_FIELDS = 64
# A text in which a field seems to begin so often is made to confuse.
MOST_BEGINS = 4

REQUIRED = ("ticket_id", "from_email")
DOCUMENTED = tuple(field.name for field in attrs.fields(ZendeskWebhookEmail))
# No customer writes them, so they hold no quote.
_WITHOUT_QUOTES = frozenset(("ticket_id", "from_email", "received_at", "webhook_id"))

_SPACE = r"[ \t\r\n]*+"
_NAME = re.compile(r'[^"\\\x00-\x1f]{1,100}')
_BEGINS_LIKE_A_FIELD = re.compile(rf',{_SPACE}"[^"\\\x00-\x1f]{{1,100}}+"{_SPACE}:')
_DOCUMENTED_FIELD = re.compile(rf'[{{,]{_SPACE}"({"|".join(DOCUMENTED)})"{_SPACE}:')
_SPACES = " \t\r\n"

Order: TypeAlias = tuple[str, ...]
_Value: TypeAlias = tuple[Any, dict[str, None]]
"""A value, and what was mended in it."""


class FieldOrders:
    """The orders of fields that are known.

    Args:
        stated: those of the setting; they alone count where there are any.
    """

    def __init__(self, stated: Iterable[Order] = ()) -> None:
        self._stated = tuple(stated)
        self._learned: tuple[Order, ...] = ()
        """Replaced and never changed: long bodies are read in threads meanwhile."""

    def learn(self, names: Iterable[str]) -> None:
        """Remember the order of a payload that came whole."""
        order = tuple(names)
        if order in self._learned or not _is_usable(order):
            return
        self._learned = (*self._learned, order)[-MOST_ORDERS:]

    def read(self, text: str) -> Mended:
        """Read a broken payload, if there is one way to do so.

        Raises:
            AmbiguousError: there is none, or more than one; says which.
        """
        if self._stated:
            found = _distinct(_read_each(text, self._stated, is_certain=True))
            return _only(found or _distinct([mend(text)]))
        found = _distinct([mend(text), *_read_each(text, self._learned)])
        if not found and (order := _documented_order(text)) is not None:
            found = _distinct(_read_each(text, [order]))
        return _only(found)

    def is_other_than_stated(self, names: Iterable[str]) -> bool:
        """Whether fields are those of no template of the setting."""
        return bool(self._stated) and tuple(names) not in self._stated

    def read_stated(self, text: str) -> Mended:
        """Read a payload by the fields of the setting alone.

        Raises:
            AmbiguousError: as in `read`.
        """
        return _only(_distinct(_read_each(text, self._stated, is_certain=True)))


def repeated_field(pairs: Sequence[tuple[str, Any]]) -> str | None:
    """A field that comes twice with two values, behind a text that may have brought it along."""
    seen: dict[str, Any] = {}
    may_bring_fields = False
    for name, value in pairs:
        if may_bring_fields and name in DOCUMENTED and name in seen and seen[name] != value:
            return name
        seen[name] = value
        may_bring_fields |= type(value) is str and name not in _WITHOUT_QUOTES
    return None


def _is_usable(order: Order) -> bool:
    return (
        len(order) <= MOST_FIELDS
        and all(name in order for name in REQUIRED)
        and all(_NAME.fullmatch(name) for name in order)
        and len(set(order)) == len(order)
    )


def _documented_order(text: str) -> Order | None:
    names = []
    for match in _DOCUMENTED_FIELD.finditer(text):
        names.append(match[1])
        if len(names) > len(DOCUMENTED):
            return None
    places = [DOCUMENTED.index(name) for name in names]
    is_in_order = all(one < following for one, following in pairwise(places))
    return tuple(names) if is_in_order and _is_usable(tuple(names)) else None


def _distinct(readings: Iterable[Mended | None]) -> list[Mended]:
    found: list[Mended] = []
    for reading in readings:
        if (
            reading is not None
            and isinstance(reading.value, dict)
            and all(reading.value != other.value for other in found)
        ):
            found.append(reading)
    return found


def _only(found: list[Mended]) -> Mended:
    if not found:
        raise AmbiguousError("the fields of no known template are all there")
    if len(found) > 1:
        raise AmbiguousError("it can be read in more than one way")
    return found[0]


def _read_each(text: str, orders: Iterable[Order], *, is_certain: bool = False) -> list[Mended]:
    readings = []
    for order in orders:
        reader = _Reader(text, order, is_certain=is_certain)
        readings += reader.readings()
    return readings


class _Reader:
    """Reads a text by one order of fields."""

    def __init__(self, text: str, order: Order, *, is_certain: bool) -> None:
        self._text = text
        self._order = order
        self._is_certain = is_certain

    def readings(self) -> list[Mended]:
        """The way to read it, if there is one.

        Raises:
            AmbiguousError: there are two.
        """
        first = re.match(rf'{_SPACE}\{{{_SPACE}"{re.escape(self._order[0])}"{_SPACE}:', self._text)
        end = _end_of(self._text, len(self._text))
        if first is None or end == 0 or self._text[end - 1] != "}":
            return []
        begins = []
        for name in self._order[1:]:
            pattern = re.compile(rf',{_SPACE}"{re.escape(name)}"{_SPACE}:')
            matches = islice(pattern.finditer(self._text), MOST_BEGINS + 1)
            places = [match.span() for match in matches]
            if not places:
                return []
            if len(places) > MOST_BEGINS:
                raise AmbiguousError(f"{name} seems to begin in many places")
            begins.append(places)
        begins.append([(end - 1, end)])
        # From the last field to the first: what each can be followed by is known then.
        following: dict[int, list[_Value]] = {end: []}
        for number in reversed(range(len(self._order))):
            starts = [stop for _, stop in begins[number - 1]] if number else [first.end()]
            following = {
                start: values
                for start in starts
                if (values := self._values_from(number, start, begins[number], following))
            }
        values = following.get(first.end())
        return [] if values is None else [self._to_mended(values)]

    def _values_from(
        self,
        number: int,
        start: int,
        begins: list[tuple[int, int]],
        following: dict[int, list["_Value"]],
    ) -> list["_Value"] | None:
        found = []
        for stop, next_start in begins:
            if stop >= start and next_start in following:
                raw = self._text[start:stop].strip(_SPACES)
                value = self._read_value(self._order[number], raw)
                if value is not None:
                    found.append([value, *following[next_start]])
        if len(found) > 1:
            raise AmbiguousError("it can be read in more than one way")
        return found[0] if found else None

    def _read_value(self, name: str, raw: str) -> "_Value | None":
        notes: dict[str, None] = {}
        if raw.endswith(",") and (bare := raw.rstrip("," + _SPACES)):
            notes[COMMAS] = None
            raw = bare
        if raw.startswith('"'):
            if len(raw) < 2 or not raw.endswith('"'):
                return None
            inner = raw[1:-1]
            if name in _WITHOUT_QUOTES and '"' in inner:
                return None
            if not self._is_certain and _BEGINS_LIKE_A_FIELD.search(inner):
                raise AmbiguousError(f"in {name} seems to begin another field")
            return read_unescaped(inner, notes), notes
        found = mend_value(f"[{raw}]", notes)
        if found is None or not isinstance(found[0], list) or len(found[0]) > 1:
            return None
        if not found[0]:
            return None, {**notes, BLANKS: None}
        return found[0][0], notes

    def _to_mended(self, values: list[_Value]) -> Mended:
        without_doubt({note: None for _, said in values for note in said})
        notes = [
            f"{name}: {note}"
            for name, (_, said) in zip(self._order, values, strict=True)
            for note in said
            if note != ESCAPED
        ]
        fields = dict(zip(self._order, (value for value, _ in values), strict=True))
        return Mended(fields, tuple(notes))


def _end_of(text: str, end: int) -> int:
    while end > 0 and text[end - 1] in _SPACES:
        end -= 1
    return end
