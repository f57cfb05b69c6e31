"""From the raw bytes of a webhook to a JSON object, however odd it is.

Ordinary payloads take the fast decoder. What it refuses for a limit of its own (lone surrogates,
huge numbers, deep nesting, raw line breaks inside strings) is read by the tolerant one: an odd
email is still an email.
"""

import json
import math
import re
from typing import Any

import attrs
import msgspec

from app.intake.charset import decode, is_read_as_utf_8
from app.intake.refused import RefusedError
from app.models.fit import DEEPEST_NESTING
from app.models.quarantined_webhook import RefusalReason

# What no template nests deep enough to need; each bracket and string costs time.
MOST_TOKENS = 1_000_000

# A quoted string (or the rest of the text, where its end is missing), or a bracket. The possessive
# quantifier keeps the scan linear.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
_CLOSES = {"]": "[", "}": "{"}


CONTROL_CHARACTERS = "line breaks and the like that were not escaped were kept as they are"


class UnreadableBodyError(RefusedError):
    """The body of a webhook is not a JSON object."""

    reason = RefusalReason.UNREADABLE
    status = 400


class BrokenBodyError(UnreadableBodyError):
    """The body is not JSON, or not in its charset: what Zendesk signed is an email all the same."""


@attrs.frozen
class JsonBody:
    """A decoded body and whether PostgreSQL's `json` type takes its bytes and gives them out."""

    fields: dict[str, Any]
    is_plain: bool
    mended: tuple[str, ...] = ()
    """What of it had to be mended, in words."""


def read_json_object(body: bytes, content_type: str | None = None) -> JsonBody:
    """Decode a body, in UTF-8 or the charset that its Content-Type declares.

    Raises:
        BrokenBodyError: it is not JSON, or not in its charset.
        UnreadableBodyError: it is blank, or JSON that is no object.
    """
    if is_read_as_utf_8(body, content_type):
        try:
            decoded = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            # PostgreSQL stores the escape of a NUL, and then refuses to read what holds it.
            return JsonBody(as_object(decoded), is_plain=body.rfind(b"\\u0000") < 0)
    try:
        text = decode(body, content_type)
    except UnicodeDecodeError as error:
        charset = error.encoding.upper()
        raise BrokenBodyError(
            f"the body is not {charset} (byte {error.start}): send it as UTF-8 JSON"
        ) from None
    decoded, mended = read_text(text)
    return JsonBody(as_object(decoded), False, mended)


def as_object(decoded: Any) -> dict[str, Any]:
    """What was decoded.

    Raises:
        UnreadableBodyError: it is no object.
    """
    if not isinstance(decoded, dict):
        raise UnreadableBodyError(
            "the body has to be a JSON object such as "
            '{"ticket_id": "35436", "from_email": "erika@example.com"}'
        )
    return decoded


def read_text(text: str) -> tuple[Any, tuple[str, ...]]:
    """Decode JSON, however odd it is. Returns it and what was mended, in words.

    Raises:
        BrokenBodyError: it is not JSON.
        UnreadableBodyError: it is blank.
    """
    if not text.strip("\ufeff\x00 \t\r\n"):
        raise UnreadableBodyError("the body is blank: see that the webhook's template is not")
    try:
        try:
            return loads_tolerantly(text), _mended_by_tolerance(text)
        except RecursionError:
            return loads_tolerantly(_without_deep_nesting(text)), ()
    except ValueError as error:
        raise BrokenBodyError(
            f"the body is not JSON ({error}): look for unescaped quotes or a stray comma in the "
            "webhook's template"
        ) from None


def _mended_by_tolerance(text: str) -> tuple[str, ...]:
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return (CONTROL_CHARACTERS,)
    return ()


def loads_tolerantly(text: str) -> Any:
    """Read JSON in which strings may hold raw control characters; numbers that are too large for
    any reader come back as their digits.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(
        text,
        strict=False,
        parse_int=_read_int,
        parse_float=_read_float,
        parse_constant=_refuse_constant,
    )


def _read_int(digits: str) -> int | str:
    # Python refuses to convert more than 4,300 digits.
    return int(digits) if len(digits) < 1000 else digits


def _read_float(digits: str) -> float | str:
    value = float(digits)
    return value if math.isfinite(value) else digits


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _without_deep_nesting(text: str) -> str:
    """Replace what is nested deeper than `DEEPEST_NESTING` by null; the rest stays as it is.

    Raises:
        ValueError: the brackets do not match, or are too many.
    """
    kept: list[str] = []
    open_brackets: list[str] = []
    kept_until = 0
    for count, token in enumerate(_TOKEN.finditer(text)):
        if count == MOST_TOKENS:
            raise ValueError("it is nested too deep, and has too many brackets")
        bracket = token.group()
        if bracket in "[{":
            open_brackets.append(bracket)
            if len(open_brackets) == DEEPEST_NESTING:
                kept.append(text[kept_until : token.start()] + "null")
        elif bracket in "]}":
            if not open_brackets or open_brackets.pop() != _CLOSES[bracket]:
                raise ValueError(f"unmatched {bracket} at character {token.start()}")
            if len(open_brackets) == DEEPEST_NESTING - 1:
                kept_until = token.end()
    if open_brackets:
        raise ValueError("unclosed brackets at the end")
    kept.append(text[kept_until:])
    return "".join(kept)
