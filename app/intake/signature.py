"""Is it Zendesk? The signature over the raw bytes of a webhook.

The scheme: base64(HMAC-SHA256(secret as text, timestamp + body)), from
https://developer.zendesk.com/documentation/webhooks/verifying/
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from app.intake.refused import RefusedError
from app.models.fit import in_utc
from app.models.quarantined_webhook import RefusalReason
from app.setting_groups.secrets import WebhookSecret

SIGNATURE_HEADER = "x-zendesk-webhook-signature"
TIMESTAMP_HEADER = "x-zendesk-webhook-signature-timestamp"
INVOCATION_HEADER = "x-zendesk-webhook-invocation-id"

LONGEST_TIMESTAMP = 64


class SignatureRefusedError(RefusedError):
    """The webhook does not prove that it comes from Zendesk."""

    reason = RefusalReason.SIGNATURE
    status = 401


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The signature that Zendesk would send for a body at a time."""
    digest = hmac.digest(secret.encode(), timestamp.encode() + body, hashlib.sha256)
    return base64.b64encode(digest).decode()


def signed_headers(secret: str, body: bytes) -> dict[str, str]:
    """The headers that Zendesk would send with a body now, for a new invocation."""
    timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "content-type": "application/json; charset=utf-8",
        SIGNATURE_HEADER: sign(secret, timestamp, body),
        TIMESTAMP_HEADER: timestamp,
        INVOCATION_HEADER: uuid4().hex,
    }


def verify(
    *,
    signature: str | None,
    timestamp: str | None,
    body: bytes,
    secrets: Sequence[WebhookSecret],
    max_age_seconds: int,
    now: datetime,
) -> str:
    """Check a signature against every active secret.

    Returns:
        The label of the secret that made it.

    Raises:
        SignatureRefusedError: it is missing, malformed, wrong, or too far from `now`.
    """
    if not signature or not timestamp:
        raise SignatureRefusedError(
            "the headers X-Zendesk-Webhook-Signature and X-Zendesk-Webhook-Signature-Timestamp "
            "are needed: switch on signing for this webhook in Zendesk"
        )
    given = _decode(signature)
    message = timestamp.encode("latin-1", "replace") + body
    label = None
    for secret in secrets:
        # No early exit: the time taken must not tell which secret fitted.
        if hmac.compare_digest(hmac.digest(secret.secret.encode(), message, hashlib.sha256), given):
            label = secret.label
    if label is None:
        raise SignatureRefusedError(
            "the signature fits none of the active secrets: compare MAILROOM_WEBHOOK_SECRETS with "
            "the signing secret shown in Zendesk's Admin Center; if they are the same, a proxy in "
            "between changed the body, which has to arrive byte for byte"
        )
    # Only now is the timestamp known to be Zendesk's own.
    age = abs((now - when_signed(timestamp)).total_seconds())
    if age > max_age_seconds:
        raise SignatureRefusedError(
            f"the signature's timestamp is {age:.0f} seconds away from the server's clock, "
            f"{max_age_seconds} are allowed (MAILROOM_SIGNATURE_MAX_AGE_SECONDS)"
        )
    return label


def _decode(signature: str) -> bytes:
    try:
        digest = binascii.a2b_base64(signature)
    except ValueError:
        digest = b""
    # Base64 has several spellings of the same bytes, by bits that it leaves unused, and by what is
    # passed over in it. One is accepted, since a replay is recognised by its signature's text.
    if binascii.b2a_base64(digest, newline=False).decode() != signature:
        raise SignatureRefusedError(
            "X-Zendesk-Webhook-Signature is not base64: send base64(HMAC-SHA256(secret, "
            "timestamp + body))"
        )
    return digest


def when_signed(timestamp: str) -> datetime:
    """When Zendesk signed a webhook, by the header that says so.

    Raises:
        SignatureRefusedError: it is no time.
    """
    try:
        return in_utc(datetime.fromisoformat(timestamp[:LONGEST_TIMESTAMP]))
    except (ValueError, OverflowError):
        raise SignatureRefusedError(
            "X-Zendesk-Webhook-Signature-Timestamp is not an ISO 8601 time such as "
            "2026-11-23T14:05:09Z"
        ) from None
