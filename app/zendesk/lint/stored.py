"""The lint of what is stored: refused webhooks, and emails that were mended or cannot be read."""

import json
from typing import Any, Protocol
from uuid import UUID

from app.intake.field_orders import FieldOrders
from app.intake.refusals import Refusal
from app.zendesk.lint.findings import Report
from app.zendesk.lint.lint import lint

# What an operator mended by hand is asked about as it came.
SELECT_BROKEN = """
SELECT raw_payload::text AS payload, original_body,
    delivery_signature IS NOT NULL AND delivery_signature NOT LIKE 'quarantine:%' AS is_genuine
FROM incoming_emails
WHERE id = $1 AND erased_at IS NULL AND raw_payload IS NOT NULL
    AND ((extracted_data -> 'repaired') IS NOT NULL
        OR (extracted_data -> 'unreadable') IS NOT NULL)
"""


class _Database(Protocol):
    async def fetchrow(self, query: str, *args: Any) -> Any: ...


def lint_refusal(
    refusal: Refusal,
    body: bytes | None = None,
    *,
    is_genuine: bool,
    orders: FieldOrders | None = None,
) -> Report | None:
    """What is wrong with the bytes of a refused webhook, or with what was made of them."""
    looked_at = refusal.body if body is None else body
    if looked_at is None:
        return None
    return lint(looked_at, headers=refusal.headers, orders=orders, is_trusted=is_genuine)


async def lint_email(
    database: _Database, email_id: UUID, orders: FieldOrders | None = None
) -> Report | None:
    """What is wrong with the bytes of an email that was mended, or cannot be read; None for any
    other."""
    row = await database.fetchrow(SELECT_BROKEN, email_id)
    if row is None:
        return None
    body = row["original_body"]
    if body is None:
        payload = json.loads(row["payload"], strict=False)
        body = (payload if isinstance(payload, str) else row["payload"]).encode("utf-8", "replace")
    return lint(body, orders=orders, is_trusted=row["is_genuine"])
