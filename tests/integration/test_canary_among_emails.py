"""A canary in a batch of the Intake: whatever becomes of it, the emails beside it are answered."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import uuid4

import asyncpg
import attrs

from app.intake.admission import Admission
from app.intake.canary import make_canary_row
from app.intake.email_row import EmailRow, make_row
from app.intake.json_body import read_json_object
from app.intake.payload import check_payload
from app.intake.row_writer import NotStoredError
from app.intake.writer import EmailWriter
from app.models.webhook_status import WebhookStatus
from app.telemetry.request_id import uuid7

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


def make_email_row() -> EmailRow:
    """One without any key: sent again, it would be another email."""
    fields = {"ticket_id": "1", "from_email": "erika@example.com", "subject": "S", "body_text": "T"}
    body = b'{"ticket_id": "1"}'
    return make_row(
        body,
        read_json_object(body),
        check_payload(fields),
        email_id=uuid7(),
        invocation_id=None,
        signature=None,
        now=datetime.now(UTC),
    )


async def store(pool: Pool, rows: Sequence[EmailRow]) -> list[Admission | BaseException]:
    writer = EmailWriter(pool, batch_rows=10, max_waiting=100, deadline_seconds=20.0)
    try:
        return await asyncio.gather(*map(writer.store, rows), return_exceptions=True)
    finally:
        await writer.close()


def is_accepted(answer: Admission | BaseException) -> bool:
    return isinstance(answer, Admission) and answer.status is WebhookStatus.ACCEPTED


async def test_emails_are_accepted_beside_a_canary_whose_row_is_locked(pool: Pool) -> None:
    canary = make_canary_row(uuid4(), datetime.now(UTC))
    await pool.execute("INSERT INTO canaries (id, token) VALUES (1, $1)", canary.id)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM canaries FOR UPDATE")
        email, tried = await store(pool, [make_email_row(), canary])
    assert is_accepted(email)
    assert isinstance(tried, NotStoredError)
    accepted = "SELECT accepted_at FROM canaries"
    assert await pool.fetchval(accepted) is None
    assert (await store(pool, [canary]))[0] == Admission(None, is_duplicate=False, is_email=False)
    assert await pool.fetchval(accepted) is not None


async def test_an_email_is_stored_once_beside_a_canary_that_is_refused(pool: Pool) -> None:
    canary = make_canary_row(uuid4(), datetime.now(UTC))
    too_long = attrs.evolve(canary, from_email="e" * 400)
    email, tried = await store(pool, [make_email_row(), too_long])
    assert is_accepted(email)
    assert isinstance(tried, NotStoredError)
    assert await pool.fetchval("SELECT count(*) FROM incoming_emails") == 1
