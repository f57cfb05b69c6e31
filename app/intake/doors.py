"""What is told of an email by the door through which it came, if that is not the webhook's own."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import attrs

from app.intake.email_row import EmailRow, entries
from app.models.incoming_email import Origin


def unchanged(row: EmailRow) -> EmailRow:
    """It came by itself: nothing is told."""
    return row


def as_recovered(record: str) -> Callable[[EmailRow], EmailRow]:
    """It came from a record of Zendesk's."""

    def finish(row: EmailRow) -> EmailRow:
        told = and_told(row, f"no webhook brought it: it was recovered from {record}")
        return attrs.evolve(row, origin=Origin.RECOVERED.value, attempt_errors=told)

    return finish


def as_mended(
    original: bytes | None, by: str, received_at: datetime
) -> Callable[[EmailRow], EmailRow]:
    """An operator admitted it from the quarantine.

    Args:
        original: the bytes as they came, where the operator changed them.
    """
    done = "admitted" if original is None else "mended and admitted"
    text = f"{done} from the quarantine by {by}; it came {received_at.isoformat()}"

    def finish(row: EmailRow) -> EmailRow:
        return attrs.evolve(row, original_body=original, attempt_errors=and_told(row, text))

    return finish


def and_told(row: EmailRow, *texts: str) -> str:
    """The entries of `attempt_errors` with some more: `mailroom show` tells them."""
    more = json.loads(entries(texts, datetime.now(UTC)))
    return json.dumps(json.loads(row.attempt_errors) + more)
