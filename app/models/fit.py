"""Values made fit for PostgreSQL, and for every reader after it.

PostgreSQL's text and UTF-8 carry neither NUL nor halves of surrogate pairs, and readers of JSON
stop at both, at what is nested without end and at numbers of thousands of digits. What is stored
goes through here first; what older versions stored goes through here when it is read.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

# Deeper than any template nests, and far below the recursion limit of readers.
DEEPEST_NESTING = 100

# As `json.dumps` writes them: halves of surrogate pairs, whole pairs too, and NUL.
_UNFIT_ESCAPE = re.compile(r"\\u(?:d[89a-f]|0000)")


def fit_text(text: str) -> str:
    """Text without NUL, surrogate pairs joined, their lone halves replaced by U+FFFD."""
    if text.isascii():
        return text.replace("\x00", "") if "\x00" in text else text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\x00", "")


def fit_optional_text(text: object) -> str | None:
    """Text or None, made fit.

    Raises:
        TypeError: it is neither.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"has to be text, not {type(text).__name__}")
    return fit_text(text)


def fit_json(value: Any, depth: int = 0) -> Any:
    """A JSON value in which keys and texts are fit at every depth.

    What is nested deeper than `DEEPEST_NESTING` is replaced by None.
    """
    if isinstance(value, str):
        return fit_text(value)
    if not isinstance(value, dict | list | tuple):
        return value
    if depth == DEEPEST_NESTING:
        return None
    if isinstance(value, dict):
        return {
            fit_text(key) if isinstance(key, str) else key: fit_json(item, depth + 1)
            for key, item in value.items()
        }
    return [fit_json(item, depth + 1) for item in value]


def to_fit_json(value: Any) -> str:
    """The JSON text of a value, made fit.

    Raises:
        TypeError, ValueError, RecursionError: it is more than JSON can say.
    """
    text = json.dumps(value, allow_nan=False)
    if _UNFIT_ESCAPE.search(text) or text.count("{") + text.count("[") >= DEEPEST_NESTING:
        # From its text, because what `json.dumps` takes is more than dictionaries and lists.
        return json.dumps(fit_json(json.loads(text)))
    return text


def read_json(text: str | None) -> Any:
    """What stored JSON says, made fit; the text itself where no reader can take it."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        # What no escape names PostgreSQL's text cannot hold.
        is_plain = "\\u" not in text and text.count("{") + text.count("[") < DEEPEST_NESTING
        return value if is_plain else fit_json(value)
    except (ValueError, RecursionError):
        # Nested too deep, or digits without end.
        return text


def read_object(text: str | None) -> dict[str, Any]:
    """What stored JSON says, where that is an object; nothing else has names."""
    value = read_json(text)
    return value if isinstance(value, dict) else {}


def is_unreadable(column: str) -> str:
    """Whether PostgreSQL refuses to look into what a column of its type `json` holds, in SQL.

    It stores NUL there, and halves of surrogate pairs, and a statement that meets them fails for
    all its rows. What the Intake and handlers wrote holds neither.
    """
    # The first condition costs little, and mostly settles it.
    return rf"""({column}::text LIKE '%\\u%' AND regexp_replace(
        {column}::text, '\\ud[89ab][0-9a-f]{{2}}\\ud[c-f][0-9a-f]{{2}}', '', 'gi'
    ) ~* '\\u(d[89a-f]|0000)')"""


def in_utc(moment: datetime) -> datetime:
    """A time in UTC; one without a zone is meant so.

    Raises:
        OverflowError: that lies outside the calendar.
    """
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def containing(text: str) -> str:
    """The pattern by which PostgreSQL's LIKE finds what contains a text."""
    return "%" + re.sub(r"[\\%_]", r"\\\g<0>", fit_text(text)) + "%"
