"""What became of a webhook, apart from the DTOs: workers count it and need no web framework."""

from enum import StrEnum


class WebhookStatus(StrEnum):
    """What became of a webhook that was answered 200."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    ACKNOWLEDGED = "acknowledged"
