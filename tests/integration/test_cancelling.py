"""Deliveries that wait where nothing is delivered any more are called off."""

import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest
from support import make_settings

from app.jobs.story import tell_story
from app.models.incoming_email import ProcessingStatus
from app.sync import cancelling, claims, transitions
from app.sync.breaker import MAKE
from app.sync.claims import Source
from app.sync.transitions import End, Outcome, Result

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
RECEIVER = "crm.example.com 12345678"
STATES = ("pending", "synced", "failed", "not_applicable")
ENDED = {
    "processing_status": "completed",
    "completed_at": NOW - HOUR,
    "sync_status": "pending",
    "sync_next_attempt_at": NOW + HOUR,
    "sync_version": 1,
}


async def store(pool: Pool, **columns: Any) -> UUID:
    values = {**ENDED, **columns}
    numbers = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(values)}) VALUES ({numbers}) RETURNING id",
        *values.values(),
    )
    return email_id


async def read(pool: Pool, email_id: UUID) -> dict[str, Any]:
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    return dict(row)


async def cancel(pool: Pool, *, applies: bool = True) -> tuple[int, int]:
    steps = [step async for step in cancelling.cancel(pool, applies=applies, by="erika")]
    return sum(step.found for step in steps), sum(step.cancelled for step in steps)


async def test_what_waits_and_is_in_nobodys_hands_is_called_off_and_nothing_else(
    pool: Pool,
) -> None:
    vanished, under_way = NOW - HOUR, NOW + HOUR
    cases = itertools.product(ProcessingStatus, STATES, [None, vanished, under_way])
    for job, state, lease in cases:
        email_id = await store(
            pool,
            processing_status=job.value,
            sync_status=state,
            sync_lease_expires_at=lease,
            sync_token=None if lease is None else uuid4(),
            sync_retry_count=2,
            sync_error="away",
        )
        before = await read(pool, email_id)
        has_ended = job in (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)
        is_meant = has_ended and state == "pending" and lease is not under_way
        told = (job, state, lease)
        assert await cancel(pool, applies=False) == (is_meant, 0), told
        assert await read(pool, email_id) == before, told
        assert await cancel(pool) == (is_meant, is_meant), told
        after = await read(pool, email_id)
        changed = {name: after[name] for name in before if before[name] != after[name]}
        if is_meant:
            assert changed == {"sync_status": "not_applicable", "sync_next_attempt_at": None}, told
        else:
            assert changed == {}, told
        await pool.execute("DELETE FROM incoming_emails")


async def test_the_story_tells_who_called_it_off(pool: Pool) -> None:
    email_id = await store(pool)
    await cancel(pool)
    story = await tell_story(pool, email_id, make_settings())
    assert story is not None
    [entry] = [event.what for event in story.events if "called off" in event.what]
    assert entry == "delivery: called off, since nothing is delivered any more (by erika)"


async def test_more_than_a_stretch_is_called_off_past_what_somebody_has_locked(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "STRETCH", 3)
    monkeypatch.setattr(cancelling, "BATCH", 2)
    # Some of one moment.
    ids = [await store(pool, completed_at=NOW - (n // 4) * HOUR) for n in range(20)]
    ids += [await store(pool, processing_status="failed") for _ in range(4)]
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", ids[7])
        assert await cancel(pool) == (24, 23)
    assert (await read(pool, ids[7]))["sync_status"] == "pending"
    assert await cancel(pool) == (1, 1)
    assert await pool.fetchval("SELECT count(*) FROM email_events") == len(ids)


@pytest.mark.parametrize("outcome", [Outcome.SYNCED, Outcome.FAILED, Outcome.LATER])
async def test_the_answer_of_a_worker_that_was_taken_for_vanished_revives_nothing(
    pool: Pool, outcome: Outcome
) -> None:
    email_id = await store(pool, sync_next_attempt_at=NOW - HOUR)
    await pool.execute(MAKE, RECEIVER)
    [late] = await claims.claim_emails(
        pool, limit=1, lease=HOUR, receiver=RECEIVER, most_body_bytes=10, most_data_bytes=10
    )
    await pool.execute("UPDATE incoming_emails SET sync_lease_expires_at = $1", NOW - HOUR)
    assert await cancel(pool) == (1, 1)
    [end] = await transitions.record(
        pool, Source.EMAILS, [Result(late, outcome, delay=HOUR, counts=True)], worker="w"
    )
    row = await read(pool, email_id)
    assert end is End.RECORDED
    assert (row["sync_status"], row["sync_next_attempt_at"]) == ("not_applicable", None)
    assert (row["synced_at"] is not None) == (outcome is Outcome.SYNCED)
    # It may have arrived.
    assert await transitions.tell_erased(pool, [email_id]) == 1


async def test_the_receiver_is_told_of_the_erasure_of_what_it_may_have(pool: Pool) -> None:
    never = await store(pool)
    tried = await store(pool, sync_retry_count=1)
    begun = await store(pool, sync_token=uuid4(), sync_lease_expires_at=NOW - HOUR)
    before = await store(pool, synced_at=NOW)
    await cancel(pool)
    assert await transitions.tell_erased(pool, [never, tried, begun, before]) == 3
    told = await pool.fetch("SELECT email FROM sync_events")
    assert {row["email"] for row in told} == {tried, begun, before}


async def test_what_loses_a_file_after_it_was_called_off_has_another_number_when_it_is_delivered(
    pool: Pool,
) -> None:
    never = await store(pool)
    may_be_there = [
        await store(pool, sync_retry_count=1),
        await store(pool, synced_at=NOW),
        await store(pool, sync_token=uuid4(), sync_lease_expires_at=NOW - HOUR),
    ]
    in_a_job = await store(pool, synced_at=NOW)
    await cancel(pool)
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'queued' WHERE id = $1", in_a_job
    )
    for email_id in (never, *may_be_there, in_a_job):
        before = await read(pool, email_id)
        await transitions.deliver_without_file(pool, email_id)
        after = await read(pool, email_id)
        changed = {name: after[name] for name in before if before[name] != after[name]}
        assert changed == ({"sync_version": 2} if email_id in may_be_there else {})
    assert await pool.fetchval("SELECT count(*) FROM email_events WHERE text LIKE '%file%'") == 0


async def test_a_large_backlog_is_called_off_by_its_index(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO incoming_emails (processing_status, completed_at, sync_status)"
        " SELECT 'completed', now() - n * interval '1 second',"
        " CASE n % 3 WHEN 0 THEN 'synced' WHEN 1 THEN 'pending' ELSE 'failed' END"
        " FROM generate_series(1, 30000) AS n"
    )
    await pool.execute("VACUUM ANALYZE incoming_emails")
    for since in (None, NOW - 5 * HOUR):
        rows = await pool.fetch(
            f"EXPLAIN (ANALYZE, BUFFERS OFF, TIMING OFF) {cancelling.FIND}",
            since,
            cancelling.BEFORE_ALL,
            1_000,
        )
        plan = "\n".join(row[0] for row in rows)
        assert "ix_incoming_emails_unsynced" in plan, plan
        # A stretch, and not all that waits.
        assert "Index Scan" in plan and "Incremental Sort" in plan, plan
        [scanned] = re.findall(r"Index Scan .* \(actual rows=(\d+)", plan)
        assert float(scanned) < 1_200, plan
