"""Entries of `email_events`: written with the change that they tell of, read as one story with what
the job met with."""

from typing import TypeAlias
from uuid import UUID

import asyncpg
from support import make_settings

from app.jobs.story import SELECT_ENTRIES, tell_story
from app.jobs.transitions import operators
from app.models.email_event import MOST_CHARACTERS, EmailEventKind, events_of

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

CHANGE = f"""
WITH changed AS (
    UPDATE incoming_emails SET sync_status = 'failed', sync_retry_count = sync_retry_count + 1
    WHERE id = ANY($1::uuid[]) RETURNING id, sync_retry_count
),
history AS ({
    events_of(
        "changed",
        EmailEventKind.DELIVERY,
        "$2::text",
        worker="'one'",
        attempt="sync_retry_count",
    )
})
SELECT count(*) FROM changed
"""


async def store(pool: Pool) -> UUID:
    email_id: UUID = await pool.fetchval(
        "INSERT INTO incoming_emails (zendesk_ticket_id, processing_status, completed_at)"
        " VALUES ('35436', 'failed', now()) RETURNING id"
    )
    return email_id


async def test_an_entry_is_written_with_its_change_and_stands_in_the_one_story(pool: Pool) -> None:
    email_id, other = await store(pool), await store(pool)
    assert await pool.fetchval(CHANGE, [email_id], "the receiver answered 503") == 1
    await operators.retry(pool, email_id, by="erika")
    await pool.execute(
        events_of("incoming_emails", EmailEventKind.RECONCILIATION, "'looked at'", who="'erika'")
    )
    story = await tell_story(pool, email_id, make_settings())
    assert story is not None
    assert [event.what for event in story.events] == [
        "received: stored durably, and Zendesk was told 200",
        "delivery, try 1: the receiver answered 503 (by one)",
        "retried by erika",
        "looked at (by erika)",
    ]
    others = await tell_story(pool, other, make_settings())
    assert others is not None
    assert "looked at (by erika)" in [event.what for event in others.events]
    assert not any("503" in event.what for event in others.events)


async def test_no_entry_without_its_change(pool: Pool) -> None:
    email_id = await store(pool)
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(CHANGE, [email_id], "the receiver answered 503")
        assert await connection.fetchval("SELECT count(*) FROM email_events") == 1
        await transaction.rollback()
    assert await pool.fetchval("SELECT count(*) FROM email_events") == 0
    assert await pool.fetchval(CHANGE, [UUID(int=1)], "of no email") == 0
    assert await pool.fetchval("SELECT count(*) FROM email_events") == 0


async def test_a_text_is_bounded(pool: Pool) -> None:
    email_id = await store(pool)
    await pool.execute(CHANGE, [email_id], "x" * 1_000_000)
    assert await pool.fetchval("SELECT length(text) FROM email_events") == MOST_CHARACTERS


async def test_a_story_is_found_by_the_index_in_a_large_history(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO email_events (email, kind, text)"
        " SELECT gen_random_uuid(), 'delivery', 'x' FROM generate_series(1, 20000)"
    )
    await pool.execute("ANALYZE email_events")
    plan = "\n".join(
        row[0] for row in await pool.fetch(f"EXPLAIN {SELECT_ENTRIES}", UUID(int=1), 10)
    )
    assert "ix_email_events_email" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
