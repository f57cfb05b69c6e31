"""From a JSON object to a checked `ZendeskWebhookEmail`.

What makes it no email is named at once. What is merely odd (nulls, blank optional fields, numbers
as text, NUL bytes, lone surrogates) is put right here, and what is optional never refuses an
email: where it cannot be taken, it is told and left in `raw_payload`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from app.intake.attachments import read_attachments
from app.intake.refused import RefusedError
from app.models.fit import fit_text
from app.models.quarantined_webhook import RefusalReason
from app.models.webhook_schemas import Attachment, ZendeskWebhookEmail

T = TypeVar("T")


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

    left_out: list[str] = attrs.field(factory=list)
    """What was sent and is not taken, for people to read; `raw_payload` has it."""


def check_payload(fields: dict[str, Any]) -> CheckedPayload:
    """Check every field of a payload.

    Raises:
        InvalidPayloadError: without a ticket and a sender it is no email; names what is wrong.
    """
    errors: list[FieldError] = []
    left_out: list[str] = []

    ticket_id = _read_required(fields, "ticket_id", _text_or_number, errors)
    from_email = _read_required(fields, "from_email", _text, errors)
    if errors:
        raise InvalidPayloadError(errors)
    attachments = read_attachments(fields.get("attachments"))
    email = ZendeskWebhookEmail(
        ticket_id=ticket_id,
        from_email=from_email,
        from_name=_read(fields, "from_name", _optional_text, left_out),
        subject=_read(fields, "subject", _optional_text, left_out),
        body_html=_read(fields, "body_html", _optional_text, left_out),
        body_text=_read(fields, "body_text", _optional_text, left_out),
        received_at=_read(fields, "received_at", _time, left_out),
        webhook_id=_read(fields, "webhook_id", _text_or_number, left_out),
        attachments=[
            Attachment(
                url=item["url"],
                filename=item["filename"],
                content_type=item["content_type"],
                size=item["size"],
            )
            for item in attachments.files
        ],
    )
    if attachments.left_out:
        left_out.append(f"attachments: {attachments.left_out} not taken: no URL was recognised")
    return CheckedPayload(email, attachments.files, left_out)


def _read_required(
    fields: dict[str, Any],
    name: str,
    reader: Callable[[Any], str | None],
    errors: list[FieldError],
) -> str:
    try:
        return _required(reader, fields.get(name))
    except ValueError as error:
        errors.append(FieldError(name, str(error)))
        return ""


def _read(
    fields: dict[str, Any], name: str, reader: Callable[[Any], T], left_out: list[str]
) -> T | None:
    try:
        return reader(fields.get(name))
    except ValueError as error:
        left_out.append(f"{name} is not taken: it {error}")
        return None


def _text(value: Any) -> str | None:
    if type(value) is not str:
        value = _alone(value)
        if value is None:
            return None
        if type(value) is not str:
            raise ValueError(f"has to be a string, not {_name_of(value)}")
    text = fit_text(value)
    return text if text and not text.isspace() else None


def _text_or_number(value: Any) -> str | None:
    value = _alone(value)
    if type(value) is int or type(value) is float:
        return str(int(value)) if value == int(value) else str(value)
    if value is not None and type(value) is not str:
        raise ValueError(f"has to be a string or a number, not {_name_of(value)}")
    text = _text(value)
    return text.strip() if text else None


def _optional_text(value: Any) -> str | None:
    """A subject such as 4711 comes as a number where the template has no quotes round it."""
    value = _alone(value)
    return _text_or_number(value) if type(value) is int or type(value) is float else _text(value)


def _time(value: Any) -> str | int | float | None:
    value = _alone(value)
    if type(value) is int or type(value) is float:
        return value
    return _text(value)


def _alone(value: Any) -> Any:
    """A list of one is as good as the one."""
    return value[0] if type(value) is list and len(value) == 1 else value


def _required(reader: Callable[[Any], str | None], value: Any) -> str:
    if value is None:
        raise ValueError("is missing: it has to be sent with a value")
    text = reader(value)
    if text is None:
        raise ValueError("is blank: it has to be sent with a value")
    return text.strip()


_TYPE_NAMES = {bool: "a boolean", int: "a number", float: "a number", list: "a list"}


def _name_of(value: Any) -> str:
    if type(value) is str:
        return "a string"
    return _TYPE_NAMES.get(type(value), "an object")
