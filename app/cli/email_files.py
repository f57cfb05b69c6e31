"""Emails out of files, for trying handlers: a webhook's JSON, as Zendesk posts it, or a message as
mail programs save it (.eml)."""

import json
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs

from app.attachments.given import Attachment, Attachments, in_memory
from app.errors import MailroomError
from app.handlers.seam import Email
from app.intake.email_row import EmailRow, make_row
from app.intake.json_body import read_json_object
from app.intake.payload import check_payload
from app.intake.refused import RefusedError
from app.jobs.claimed_email import JSON
from app.models.email_attachment import AttachmentState
from app.models.fit import fit_text, read_json

MESSAGE_END = ".eml"


class UnreadableEmailError(MailroomError):
    """A file holds no email that could be read."""


def read_email_file(path: Path) -> Email:
    """The email in a file, as its handler would get it.

    Raises:
        UnreadableEmailError: the file cannot be read, or is neither of both; the message says why.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableEmailError(f"{path} cannot be read: {error.strerror}") from error
    if path.name.lower().endswith(MESSAGE_END):
        return _from_message(content)
    try:
        return _from_webhook(content)
    except RefusedError as error:
        raise UnreadableEmailError(f"{path} is no webhook's JSON: {error}") from error


def _from_webhook(body: bytes) -> Email:
    json_body = read_json_object(body)
    row = make_row(
        body,
        json_body,
        check_payload(json_body.fields),
        email_id=uuid4(),
        invocation_id=None,
        signature=None,
        now=datetime.now(UTC),
    )
    email = _to_email(row)
    named: list[dict[str, Any]] = json.loads(row.attachment_urls or "[]")
    files = [
        Attachment(
            position=position,
            filename=file.get("filename"),
            state=AttachmentState.PENDING,
            claimed_content_type=file.get("content_type"),
            claimed_size=file.get("size"),
            detail="A file of a webhook has links alone; nothing was fetched.",
        )
        for position, file in enumerate(named)
    ]
    email.attachments = Attachments.of(files)
    return email


def _to_email(row: EmailRow) -> Email:
    columns = {
        field.name: getattr(row, field.name)
        for field in attrs.fields(EmailRow)
        if hasattr(Email, field.name)
    }
    columns |= {name: read_json(columns[name]) for name in JSON}
    return Email(**columns)


def _from_message(content: bytes) -> Email:
    message = message_from_bytes(content, policy=policy.default)
    name, address = parseaddr(str(message.get("from", "")))
    parts = [part for part in message.walk() if part.get_filename() or _is_picture(part)]
    email = Email(
        id=uuid4(),
        zendesk_ticket_id="0",
        from_email=fit_text(address),
        from_name=fit_text(name) or None,
        subject=fit_text(str(message.get("subject", ""))),
        raw_body_text=_body(message, "plain"),
        raw_body_html=_body(message, "html"),
        received_at=datetime.now(UTC),
        attempt_errors=[],
    )
    email.attachments = Attachments.of(
        [_file(position, part) for position, part in enumerate(parts)]
    )
    return email


def _body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body((kind,))
    if part is None:
        return None
    try:
        return fit_text(str(part.get_content()))
    except (LookupError, ValueError):
        # A charset that nobody knows.
        return fit_text(bytes(part.get_payload(decode=True) or b"").decode("utf-8", "replace"))


def _is_picture(part: Any) -> bool:
    return bool(part.get_content_maintype() == "image")


def _file(position: int, part: Any) -> Attachment:
    return in_memory(
        position,
        part.get_filename(),
        bytes(part.get_payload(decode=True) or b""),
        content_type=part.get_content_type(),
        is_inline=part.get_content_disposition() == "inline" or bool(part.get("content-id")),
    )
