"""A receipt of one email, which can be shown to others: what was received and when, and what became
of it, each step bound to the one before by its hash, all of it signed.

It holds no address and no text. Who holds the email's bytes can compare their SHA-256; who runs
this Mailroom can tell that nobody changed the receipt.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import attrs

from app.errors import MailroomError
from app.intake.signature import sign
from app.jobs.transitions.common import Database
from app.setting_groups.secrets import WebhookSecret
from app.settings import Settings

FORMAT = "mailroom receipt 1"
# Of the time that Zendesk signed with, only what it makes is stored: it is looked for.
LONGEST_BEFORE = timedelta(days=1)
LONGEST_AFTER = timedelta(seconds=10)
TRIED_BYTES = 256 * 1024

SELECT = """
SELECT id, zendesk_ticket_id, origin, created_at, queued_at, started_at, claimed_by, completed_at,
    processing_status, sync_status, synced_at, delivery_signature, raw_payload::text AS payload,
    original_body
FROM incoming_emails WHERE id = $1
"""


class ReceiptError(MailroomError):
    """There is no such receipt, or it is not right; the message says why."""


@attrs.frozen
class Step:
    """Something that happened to the email."""

    at: datetime
    what: str
    by: str | None = None


async def make_receipt(database: Database, email_id: UUID, settings: Settings) -> dict[str, Any]:
    """The receipt of an email.

    Raises:
        ReceiptError: there is no such email.
    """
    row = await database.fetchrow(SELECT, email_id)
    if row is None:
        raise ReceiptError(f"there is no email {email_id}: its id is in the webhook's answer")
    body = _body(row)
    found = _signed_with(row, body, settings.webhook_secrets)
    about = {
        "format": FORMAT,
        "email": str(row["id"]),
        "ticket": row["zendesk_ticket_id"],
        "origin": row["origin"],
        "made_at": datetime.now(UTC).isoformat(),
        "sha256": hashlib.sha256(body).hexdigest() if body is not None else None,
        "bytes": len(body) if body is not None else None,
        "zendesk_signature": row["delivery_signature"],
        "signed_at": found[0] if found else None,
        "secret": found[1] if found else None,
    }
    return sealed(about, _steps(row), _key(settings))


def sealed(about: dict[str, Any], steps: Sequence[Step], key: bytes) -> dict[str, Any]:
    """A receipt: the steps chained by their hashes, the last hash signed."""
    previous = _digest("", about)
    links = []
    for step in sorted(steps, key=lambda step: step.at):
        link = {"at": step.at.astimezone(UTC).isoformat(), "what": step.what, "by": step.by}
        previous = _digest(previous, link)
        links.append({**link, "hash": previous})
    signature = hmac.new(key, previous.encode(), hashlib.sha256).hexdigest()
    return {**about, "steps": links, "signature": signature}


def verify_receipt(receipt: Any, settings: Settings) -> None:
    """See that nobody changed a receipt of this Mailroom.

    Raises:
        ReceiptError: it is none, or it was changed, or another Mailroom made it.
    """
    if not isinstance(receipt, dict) or receipt.get("format") != FORMAT:
        raise ReceiptError("this is no receipt of Mailroom's")
    about = {name: value for name, value in receipt.items() if name not in ("steps", "signature")}
    steps = receipt.get("steps")
    previous = _digest("", about)
    for number, link in enumerate(steps if isinstance(steps, list) else [], start=1):
        if not isinstance(link, dict):
            raise ReceiptError(f"step {number} is none of a receipt")
        said = link.get("hash")
        bare = {name: value for name, value in link.items() if name != "hash"}
        previous = _digest(previous, bare)
        if said != previous:
            raise ReceiptError(f"step {number} or what stands before it was changed")
    right = hmac.new(_key(settings), previous.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(str(receipt.get("signature")).encode(), right.encode()):
        raise ReceiptError(
            "its signature is not right: it was changed, or made with another MAILROOM_RECEIPT_KEY"
        )


def _steps(row: asyncpg.Record) -> list[Step]:
    steps = [Step(row["created_at"], "stored durably, before it was answered 200")]
    if row["queued_at"]:
        steps.append(Step(row["queued_at"], "queued"))
    if row["started_at"]:
        steps.append(Step(row["started_at"], "claimed by a worker", row["claimed_by"]))
    if row["completed_at"]:
        by = row["claimed_by"] if row["started_at"] else None
        steps.append(Step(row["completed_at"], row["processing_status"], by))
    if row["synced_at"]:
        steps.append(Step(row["synced_at"], "delivered to the receiver"))
    return steps


def _body(row: asyncpg.Record) -> bytes | None:
    """The bytes as they came; None where they were removed."""
    if row["original_body"] is not None:
        return bytes(row["original_body"])
    if row["payload"] is None:
        return None
    text = row["payload"]
    if text.startswith('"'):
        # What PostgreSQL does not take as JSON is kept as a JSON string.
        text = json.loads(text, strict=False)
    return str(text).encode("utf-8", "replace")


def _signed_with(
    row: asyncpg.Record, body: bytes | None, secrets: Sequence[WebhookSecret]
) -> tuple[str, str] | None:
    """When Zendesk signed it, and the label of the secret."""
    if body is None or row["delivery_signature"] is None or len(body) > TRIED_BYTES:
        return None
    latest = row["created_at"] + LONGEST_AFTER
    seconds = int((LONGEST_BEFORE + LONGEST_AFTER).total_seconds())
    for before in range(seconds):
        timestamp = (latest - timedelta(seconds=before)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for secret in secrets:
            if sign(secret.secret, timestamp, body) == row["delivery_signature"]:
                return timestamp, secret.label
    return None


def _digest(previous: str, link: dict[str, Any]) -> str:
    canonical = json.dumps(link, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{canonical}".encode()).hexdigest()


def _key(settings: Settings) -> bytes:
    key = settings.receipt_key or settings.api_token
    return hashlib.sha256(f"mailroom receipts {key}".encode()).digest()
