"""What the peers' routes have in common: the payload, its signature, and the row of it."""

import base64
import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

PATH = "/api/v1/zendesk/webhook"
SIGNATURE_HEADER = "x-zendesk-webhook-signature"
TIMESTAMP_HEADER = "x-zendesk-webhook-signature-timestamp"
SECRET = os.environ.get("BENCHMARK_SECRET", "").encode()


class Payload(BaseModel):
    """What a trigger of Zendesk's posts."""

    model_config = ConfigDict(extra="allow")

    ticket_id: str
    from_email: str
    from_name: str | None = None
    subject: str = ""
    body_text: str | None = None
    body_html: str | None = None
    webhook_id: str | None = None
    attachments: list[dict[str, Any]] = []


def is_signed(body: bytes, signature: str, timestamp: str) -> bool:
    """Whether a body carries the signature of the one who knows the secret."""
    digest = hmac.new(SECRET, timestamp.encode() + body, hashlib.sha256).digest()
    return hmac.compare_digest(base64.b64encode(digest).decode(), signature)


def row_of(payload: Payload, body: bytes) -> dict[str, Any]:
    """The columns that Mailroom fills, too."""
    return {
        "id": uuid4(),
        "zendesk_ticket_id": payload.ticket_id,
        "zendesk_webhook_id": payload.webhook_id,
        "from_email": payload.from_email,
        "from_name": payload.from_name,
        "subject": payload.subject,
        "raw_body_html": payload.body_html,
        "raw_body_text": payload.body_text,
        "received_at": datetime.now(UTC),
        "attachment_urls": json.dumps(payload.attachments),
        "raw_payload": body.decode(),
        "idempotency_key": hashlib.sha256(body).hexdigest(),
    }
