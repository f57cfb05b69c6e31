"""From a checked payload to the row that is inserted: its id, its keys, its columns."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs

from app.intake.events import Event, event_key
from app.intake.inline_images import inline_images
from app.intake.json_body import JsonBody
from app.intake.payload import CheckedPayload
from app.intake.received_at import parse_received_at
from app.models.fit import fit_text, to_fit_json
from app.models.incoming_email import (
    REPAIRED,
    UNREADABLE,
    IncomingEmail,
    Origin,
    ProcessingStatus,
)

_CERTAIN_BEGIN = re.compile(
    r'\s*\{\s*"ticket_id"\s*:\s*"?(?P<ticket>\d{1,64})"?\s*'
    r'(?:,\s*"from_email"\s*:\s*"(?P<sender>[^\s"\\,]{1,320})"\s*)?[,}]'
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen
class EmailRow:
    """What the Intake writes of an email. JSON columns are JSON text."""

    id: UUID
    zendesk_ticket_id: str
    zendesk_webhook_id: str | None
    from_email: str
    from_name: str | None
    subject: str
    raw_body_html: str | None
    raw_body_text: str | None
    received_at: datetime
    idempotency_key: str | None
    attachment_urls: str | None
    raw_payload: str
    delivery_signature: str | None
    attempt_errors: str
    """What was told of the email before its first attempt."""

    original_body: bytes | None = None
    """The bytes as they came, where a person mended them."""

    zendesk_account_id: str | None = None
    """Of an event."""

    zendesk_comment_id: str | None = None
    """Of an event about a comment."""

    sent_at: datetime = EPOCH
    """When Zendesk sent it, by which an erasure is earlier or later. It is not stored."""

    extracted_data: str | None = None
    """What was mended of the payload, or why it cannot be read."""

    processing_status: str = ProcessingStatus.RECEIVED.value
    processing_error: str | None = None
    completed_at: datetime | None = None
    origin: str = Origin.WEBHOOK.value

    signed_at: datetime | None = None
    """When Zendesk signed it, by Zendesk's clock; None where it did not."""


def make_row(
    body: bytes,
    json_body: JsonBody,
    payload: CheckedPayload,
    *,
    email_id: UUID,
    invocation_id: str | None,
    signature: str | None,
    now: datetime,
    signed_at: datetime | None = None,
    day_first: bool = False,
    hosts: frozenset[str] = frozenset(),
) -> EmailRow:
    """Build the row of an email. What does not fit a column is cut there and whole in
    `raw_payload`. The images of `hosts` within the text join its files."""
    email = payload.email
    files = payload.attachment_urls
    files = [*files, *inline_images(email.body_html, files, hosts)]
    webhook_id = str(email.webhook_id) if email.webhook_id is not None else None
    return EmailRow(
        id=email_id,
        zendesk_ticket_id=_cut(str(email.ticket_id), _LENGTHS["zendesk_ticket_id"]),
        zendesk_webhook_id=_cut(webhook_id, _LENGTHS["zendesk_webhook_id"]),
        from_email=_cut(email.from_email, _LENGTHS["from_email"]),
        from_name=_cut(email.from_name, _LENGTHS["from_name"]),
        subject=_cut(email.subject or "", _LENGTHS["subject"]),
        raw_body_html=email.body_html,
        raw_body_text=email.body_text,
        received_at=parse_received_at(email.received_at, now, day_first=day_first),
        idempotency_key=idempotency_key(payload, invocation_id),
        attachment_urls=json.dumps(files) if files else None,
        raw_payload=body.decode() if json_body.is_plain else as_json_string(body),
        delivery_signature=signature,
        attempt_errors=entries(payload.left_out, now),
        sent_at=now,
        extracted_data=_what_was_mended(json_body),
        signed_at=signed_at,
    )


def make_event_row(
    body: bytes,
    json_body: JsonBody,
    event: Event,
    files: Sequence[dict[str, Any]],
    *,
    email_id: UUID,
    invocation_id: str | None,
    signature: str | None,
    now: datetime,
    signed_at: datetime | None = None,
    hosts: frozenset[str] = frozenset(),
) -> EmailRow:
    """Build the row of an email that came as an event. `files` came before it; the images of
    `hosts` within its text join them."""
    files = [*files, *inline_images(event.body_html, files, hosts)]
    told = [f"it came as an event of Zendesk's: {event.name}"]
    if not event.from_email:
        told.append("the event names no address of its sender")
    key = event.key or (event_key(event.account_id, invocation_id) if invocation_id else None)
    return EmailRow(
        id=email_id,
        zendesk_ticket_id=event.ticket_id or "",
        zendesk_webhook_id=None,
        from_email=_cut(event.from_email.strip(), _LENGTHS["from_email"]),
        from_name=_cut(event.from_name, _LENGTHS["from_name"]),
        subject=_cut(event.subject, _LENGTHS["subject"]),
        raw_body_html=event.body_html,
        raw_body_text=event.body_text,
        received_at=event.happened_at,
        idempotency_key=key,
        attachment_urls=to_fit_json(files) if files else None,
        raw_payload=body.decode() if json_body.is_plain else as_json_string(body),
        delivery_signature=signature,
        attempt_errors=entries(told, now),
        zendesk_account_id=event.account_id,
        zendesk_comment_id=event.comment_id,
        sent_at=event.happened_at,
        extracted_data=_what_was_mended(json_body),
        origin=Origin.EVENT.value,
        signed_at=signed_at,
    )


def make_broken_row(
    body: bytes,
    reason: str,
    *,
    email_id: UUID,
    invocation_id: str | None,
    signature: str,
    now: datetime,
    signed_at: datetime | None = None,
) -> EmailRow:
    """Build the row of an email that cannot be read: `failed`, with the bytes that came.

    What stands at the begin of the body, before any text of a customer, is certain all the same.
    """
    begin = _CERTAIN_BEGIN.match(body[:2_000].decode("utf-8-sig", "replace"))
    ticket, sender = map(fit_text, begin.groups("")) if begin else ("", "")
    return EmailRow(
        id=email_id,
        zendesk_ticket_id=_cut(ticket, _LENGTHS["zendesk_ticket_id"]),
        zendesk_webhook_id=None,
        from_email=_cut(sender, _LENGTHS["from_email"]),
        from_name=None,
        subject="",
        raw_body_html=None,
        raw_body_text=None,
        received_at=now,
        # Zendesk signs each delivery anew.
        idempotency_key=(
            _digest(b"unreadable", invocation_id.encode(), body) if invocation_id else None
        ),
        attachment_urls=None,
        raw_payload=as_json_string(body),
        delivery_signature=signature,
        attempt_errors="[]",
        extracted_data=json.dumps({UNREADABLE: reason}),
        processing_status=ProcessingStatus.FAILED.value,
        processing_error=reason,
        completed_at=now,
        sent_at=now,
        signed_at=signed_at,
    )


def _what_was_mended(json_body: JsonBody) -> str | None:
    return json.dumps({REPAIRED: json_body.mended}) if json_body.mended else None


def idempotency_key(payload: CheckedPayload, invocation_id: str | None) -> str | None:
    """The key by which a redelivery is recognised: SHA-256 over the delivery's id and the content.

    The content is part of it because `webhook_id` is often filled with the id of the webhook
    itself, the same in every delivery: by the id alone every email but the first would be lost.

    Returns:
        64 hexadecimal digits; None without an id, since two emails may well say the same.
    """
    email = payload.email
    if email.webhook_id is not None:
        delivery = ("webhook_id", str(email.webhook_id))
    elif invocation_id:
        delivery = ("invocation_id", invocation_id)
    else:
        return None
    parts = (
        *delivery,
        str(email.ticket_id),
        email.from_email,
        email.subject or "",
        email.body_html or "",
        email.body_text or "",
    )
    return _digest(*(part.encode() for part in parts))


def _digest(*parts: bytes) -> str:
    # The length in front keeps ("ab", "c") apart from ("a", "bc").
    whole = b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)])
    return hashlib.sha256(whole).hexdigest()


def as_json_string(body: bytes) -> str:
    """The bytes of a body as one JSON string, which every reader takes: those that are not UTF-8,
    and NUL, are written as `\\xff`."""
    return json.dumps(body.decode("utf-8", "backslashreplace").replace("\x00", "\\x00"))


_LENGTHS: dict[str, int] = {
    column._meta.name: column.length or 0
    for column in (
        IncomingEmail.zendesk_ticket_id,
        IncomingEmail.zendesk_webhook_id,
        IncomingEmail.from_email,
        IncomingEmail.from_name,
        IncomingEmail.subject,
    )
}


def _cut(text: Any, length: int) -> Any:
    return text[:length] if text is not None and len(text) > length else text


def entries(told: Sequence[str], now: datetime) -> str:
    """Entries of `attempt_errors` besides the attempts: `mailroom show` tells them."""
    if not told:
        return "[]"
    at = now.isoformat()
    return json.dumps([{"at": at, "attempt": 0, "error": text} for text in told])
