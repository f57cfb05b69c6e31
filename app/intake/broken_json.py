"""JSON that a template broke, as placeholders are not escaped: what can be mended in one way only.

Commas too many or too few, values left blank, and backslashes that escape nothing are mended where
they stand. Quotes that were not escaped need to know the fields of the template:
`app.intake.field_orders`.
"""

import re
from typing import Any

import attrs

from app.intake.json_body import CONTROL_CHARACTERS, loads_tolerantly

# Beyond it the text is no email of a template, and each token costs time.
MOST_TOKENS = 200_000

_TOKEN = re.compile(
    r'[ \t\r\n]*+(?:(?P<string>"(?:[^"\\]|\\.)*+")|(?P<mark>[{}\[\]:,])|(?P<scalar>[\w.+-]+))',
    re.DOTALL | re.ASCII,
)
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.|\Z)", re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f]")

COMMAS = "commas that were too many were left out"
MISSING_COMMAS = "commas that were missing were put in"
BLANKS = "values that were left blank are null"
BACKSLASHES = "backslashes that escape nothing were kept as they are"
QUOTES = "quotes that were not escaped were kept as they are"


ESCAPED = "escapes"
"""No mending: a backslash escapes something, or so it seems."""


class AmbiguousError(Exception):
    """It can be read in more than one way; the message says why."""


@attrs.frozen
class Mended:
    """What a broken body says."""

    value: Any
    notes: tuple[str, ...]
    """What was mended, in words."""


def mend(text: str) -> Mended | None:
    """Mend what can be mended where it stands; None where that does not make it JSON.

    Raises:
        AmbiguousError: a text may mean two things.
    """
    notes: dict[str, None] = {}
    found = mend_value(text, notes)
    return None if found is None else Mended(found[0], without_doubt(notes))


def without_doubt(notes: dict[str, None]) -> tuple[str, ...]:
    """What was mended, for people.

    Raises:
        AmbiguousError: in one place nothing was escaped, in another something may have been.
    """
    if ESCAPED in notes and (QUOTES in notes or BACKSLASHES in notes):
        raise AmbiguousError("some backslashes escape something, and some texts are not escaped")
    return tuple(note for note in notes if note != ESCAPED)


def mend_value(text: str, notes: dict[str, None]) -> tuple[Any] | None:
    """As `mend`, with what was mended added to `notes`."""
    out: list[str] = []
    before = ""
    position = 0
    for _ in range(MOST_TOKENS):
        match = _TOKEN.match(text, position)
        if match is None:
            break
        position = match.end()
        token = match.group().strip(" \t\r\n")
        kind = token if match["mark"] else "string" if match["string"] else "scalar"
        if kind == ",":
            if before in ("[", "{", ","):
                notes[COMMAS] = None
                continue
        elif kind in ("}", "]"):
            if before == ",":
                out.pop()
                notes[COMMAS] = None
        elif kind != ":":
            # Beside a string a comma that is missing could as well be a quote too many.
            if before in ("}", "]") or (before == "scalar" and kind == "string"):
                out.append(",")
                notes[MISSING_COMMAS] = None
            elif before in ("string", "scalar"):
                return None
        if kind in (",", "}", "]") and before == ":":
            out.append("null")
            notes[BLANKS] = None
        if kind == "scalar" and not _SCALAR.fullmatch(token):
            return None
        if kind == "string":
            token = f'"{_mend_string(token[1:-1], notes)}"'
        out.append(token)
        before = kind
    if text[position:].strip(" \t\r\n"):
        return None
    try:
        return (loads_tolerantly("".join(out)),)
    except (ValueError, RecursionError):
        return None


def read_unescaped(raw: str, notes: dict[str, None]) -> str:
    """What stands between the quotes round a field, quotes of its own included.

    Raises:
        AmbiguousError: what escapes something in one reading is written so in another.
    """
    if '"' not in _ESCAPE.sub("", raw):
        text: str = loads_tolerantly(f'"{_mend_string(raw, notes)}"')
        return text
    # Nothing escaped the quotes, so nothing escaped the rest.
    if any(_is_known(escape) for escape in _ESCAPE.findall(raw)):
        raise AmbiguousError("beside quotes that are not escaped stand backslashes before letters")
    notes[QUOTES] = None
    if "\\" in raw:
        notes[BACKSLASHES] = None
    if _CONTROL.search(raw):
        notes[CONTROL_CHARACTERS] = None
    return raw


def _mend_string(raw: str, notes: dict[str, None]) -> str:
    if _CONTROL.search(raw):
        notes[CONTROL_CHARACTERS] = None
    if "\\" not in raw:
        return raw
    escapes = _ESCAPE.findall(raw)
    if all(_is_known(escape) for escape in escapes):
        if any(escape not in ("\\", "/") for escape in escapes):
            notes[ESCAPED] = None
        return raw
    # `\n` beside `\U` may be a line break, or the begin of a folder's name.
    if any(_is_known(escape) and escape != "\\" for escape in escapes):
        raise AmbiguousError("some backslashes of a text escape something and some do not")
    notes[BACKSLASHES] = None
    return _ESCAPE.sub(lambda escape: rf"\\{escape[1]}" if escape[1] != "\\" else r"\\", raw)


def _is_known(escape: str) -> bool:
    return len(escape) == 5 or (escape != "" and escape in '"\\/bfnrt')
