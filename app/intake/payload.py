"""From a JSON object to a checked `ZendeskWebhookEmail`.

All that is wrong is named at once. What is merely odd (nulls, blank optional fields, numbers as
text, NUL bytes, lone surrogates) is put right here.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from app.intake.refused import RefusedError
from app.models.quarantined_webhook import RefusalReason
from app.models.webhook_schemas import Attachment, ZendeskWebhookEmail

_SURROGATE = re.compile("[\ud800-\udfff]")

T = TypeVar("T")

# Nobody reads more of them, and a list of a million wrong items must not make a million.
MOST_ERRORS = 100


@attrs.frozen
class FieldError:
    """What is wrong with one field, and what would be right."""

    field: str
    message: str


class InvalidPayloadError(RefusedError):
    """Fields of the payload are missing, blank or of the wrong type."""

    reason = RefusalReason.INVALID
    status = 400

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = errors


@attrs.frozen
class CheckedPayload:
    """A payload in which everything has its type."""

    email: ZendeskWebhookEmail
    attachment_urls: list[dict[str, Any]]
    """The attachments as they are stored: with every key that came."""


def check_payload(fields: dict[str, Any]) -> CheckedPayload:
    """Check every field of a payload.

    Raises:
        InvalidPayloadError: names each field that is wrong.
    """
    errors: list[FieldError] = []

    def read(name: str, reader: Callable[[Any], T]) -> T | None:
        try:
            return reader(fields.get(name))
        except ValueError as error:
            errors.append(FieldError(name, str(error)))
            return None

    ticket_id = read("ticket_id", _required(_text_or_number))
    from_email = read("from_email", _required(_text))
    from_name = read("from_name", _text)
    subject = read("subject", _text)
    body_html = read("body_html", _text)
    body_text = read("body_text", _text)
    received_at = read("received_at", _time)
    webhook_id = read("webhook_id", _text_or_number)
    attachment_urls = _attachments(fields.get("attachments"), errors)
    if errors or ticket_id is None or from_email is None:
        raise InvalidPayloadError(errors)
    return CheckedPayload(
        email=ZendeskWebhookEmail(
            ticket_id=ticket_id,
            from_email=from_email,
            from_name=from_name,
            subject=subject,
            body_html=body_html,
            body_text=body_text,
            received_at=received_at,
            webhook_id=webhook_id,
            attachments=[
                Attachment(
                    url=item["url"],
                    filename=item["filename"],
                    content_type=item["content_type"],
                    size=item["size"],
                )
                for item in attachment_urls
            ],
        ),
        attachment_urls=attachment_urls,
    )


def without_surrogates(text: str) -> str:
    """Join surrogate pairs and replace lone halves, which UTF-8 cannot carry."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if type(value) is not str:
        raise ValueError(f"has to be a string, not {_name_of(value)}")
    # PostgreSQL's text cannot hold NUL.
    text = without_surrogates(value.replace("\x00", "") if "\x00" in value else value)
    return text if text and not text.isspace() else None


def _text_or_number(value: Any) -> str | None:
    if type(value) is int or type(value) is float:
        return str(int(value)) if value == int(value) else str(value)
    if value is not None and type(value) is not str:
        raise ValueError(f"has to be a string or a number, not {_name_of(value)}")
    text = _text(value)
    return text.strip() if text else None


def _time(value: Any) -> str | int | float | None:
    if type(value) is int or type(value) is float:
        return value
    return _text(value)


def _required(reader: Callable[[Any], str | None]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value is None:
            raise ValueError("is missing: it has to be sent with a value")
        text = reader(value)
        if text is None:
            raise ValueError("is blank: it has to be sent with a value")
        return text.strip()

    return read


def _attachments(value: Any, errors: list[FieldError]) -> list[dict[str, Any]]:
    if value is None or (type(value) is str and not value.strip()):
        return []
    if type(value) is not list:
        errors.append(FieldError("attachments", f"has to be a list, not {_name_of(value)}"))
        return []
    items = []
    for number, item in enumerate(value):
        if len(errors) >= MOST_ERRORS:
            break
        name = f"attachments[{number}]"
        if item is None:
            continue
        if type(item) is not dict:
            errors.append(FieldError(name, f"has to be an object with a url, not {_name_of(item)}"))
            continue
        try:
            url = _required(_text)(item.get("url"))
        except ValueError as error:
            errors.append(FieldError(f"{name}.url", str(error)))
            continue
        items.append(
            {
                **item,
                "url": url,
                "filename": _text_or_none(item.get("filename")),
                "content_type": _text_or_none(item.get("content_type")),
                "size": _size(item.get("size")),
            }
        )
    return items


def _text_or_none(value: Any) -> str | None:
    return _text(value) if type(value) is str else None


def _size(value: Any) -> int | None:
    if type(value) is str and value.strip().isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is float and value == int(value):
        value = int(value)
    return value if type(value) is int and 0 <= value < 2**63 else None


_TYPE_NAMES = {bool: "a boolean", int: "a number", float: "a number", list: "a list"}


def _name_of(value: Any) -> str:
    if type(value) is str:
        return "a string"
    return _TYPE_NAMES.get(type(value), "an object")
