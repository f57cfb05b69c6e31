"""The headers by which a receiver knows a delivery, as Standard Webhooks has them.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from standardwebhooks import Webhook


class Signer:
    """Signs with one secret or several: the receiver needs one of them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets]

    def headers(self, webhook_id: str, body: str, *, at: datetime | None = None) -> dict[str, str]:
        """The headers of a delivery; `at` is when it is sent, now if not given."""
        at = at or datetime.now(UTC)
        # The library signs with one secret; the spec has the signatures of several in one header.
        signatures = [webhook.sign(webhook_id, at, body) for webhook in self._webhooks]
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def id_of_email(email_id: UUID, version: int) -> str:
    """The id of the delivery of an email's result, the same at each try."""
    return f"email_{email_id.hex}_{version}"


def id_of_event(event_id: UUID) -> str:
    """The id of the delivery of anything else."""
    return f"event_{event_id.hex}"


def id_of_batch(ids: Sequence[str]) -> str:
    """The id of several deliveries in one request: the same for the same ones in the same order."""
    return f"batch_{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:32]}"
