"""A body that Zendesk signed and its template broke: read in the one way there is, or not."""

import json
from typing import Any

from app.intake.broken_json import AmbiguousError
from app.intake.charset import decode_with_gaps
from app.intake.field_orders import DOCUMENTED, FieldOrders, repeated_field
from app.intake.json_body import BrokenBodyError, JsonBody, as_object, read_text

_QUOTED = {name: f'"{name}"'.encode() for name in DOCUMENTED}


def read_mended(body: bytes, content_type: str | None, orders: FieldOrders) -> JsonBody:
    """Read a broken body.

    Raises:
        BrokenBodyError: there is not one way to read it.
        UnreadableBodyError: it is blank, or JSON that is no object.
    """
    text, gaps = decode_with_gaps(body, content_type)
    notes = (gaps,) if gaps else ()
    try:
        decoded, mended = read_text(text)
    except BrokenBodyError as broken:
        try:
            reading = orders.read(text.removeprefix("\ufeff"))
        except AmbiguousError as ambiguous:
            raise BrokenBodyError(f"{broken}. It is not mended: {ambiguous}") from None
        decoded, mended = reading.value, reading.notes
    return JsonBody(as_object(decoded), False, (*notes, *mended))


def read_without_intruders(
    body: bytes, json_body: JsonBody, content_type: str | None, orders: FieldOrders
) -> JsonBody:
    """The payload itself, or what it is if a text in it was taken for fields.

    A customer's text that is not escaped may look like JSON: `", "subject": "another`. Then a
    field comes twice.

    Raises:
        BrokenBodyError: a field comes twice, and the setting does not tell which is the template's.
    """
    if orders.is_other_than_stated(json_body.fields):
        # Of a template that the setting does not name; or a text brought a field along.
        try:
            reading = orders.read_stated(decode_with_gaps(body, content_type)[0])
        except AmbiguousError:
            pass
        else:
            return JsonBody(reading.value, False, ("fields stood in a text", *reading.notes))
    # Looking for bytes is cheap, and what is not there twice cannot come twice.
    for name, quoted in _QUOTED.items():
        if name in json_body.fields and body.count(quoted) > 1:
            break
    else:
        return json_body
    text, _ = decode_with_gaps(body, content_type)
    repeated = repeated_field(_pairs_of(text))
    if repeated is None:
        return json_body
    try:
        reading = orders.read_stated(text)
    except AmbiguousError:
        raise BrokenBodyError(
            f"the field {repeated} comes twice, with two values: a text that is not escaped "
            "may look like fields of the payload (MAILROOM_WEBHOOK_FIELDS tells which they are)"
        ) from None
    said = f"{repeated} came twice, once of them in a text"
    return JsonBody(reading.value, False, (said, *reading.notes))


def _pairs_of(text: str) -> list[tuple[str, Any]]:
    """The fields of the outermost object, those that come twice included."""
    last: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal last
        last = pairs
        return dict(pairs)

    try:
        json.loads(text.removeprefix("\ufeff"), strict=False, parse_int=str, object_pairs_hook=keep)
    except (ValueError, RecursionError):
        return []
    return last
