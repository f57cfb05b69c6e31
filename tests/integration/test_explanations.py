"""What Mailroom tells of an email, on the ways that real transitions take."""

from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
from support import make_settings

from app.jobs import transitions
from app.jobs.story import Story, tell_story
from app.jobs.transitions import Claim

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

A_DAY = timedelta(days=1)
LEASE = timedelta(minutes=1)
LOST_AFTER = timedelta(minutes=2)
SETTINGS = make_settings()


async def store(pool: Pool) -> UUID:
    email_id: UUID = await pool.fetchval(
        "INSERT INTO incoming_emails (zendesk_ticket_id) VALUES ('35436') RETURNING id"
    )
    return email_id


async def claim(
    pool: Pool, email_id: UUID, *, worker: str = "one", lease: timedelta = LEASE
) -> Claim:
    made = await transitions.claim(pool, email_id, lease=lease, worker=worker)
    assert made is not None
    return made[0]


async def tell(pool: Pool, email_id: UUID) -> Story:
    story = await tell_story(pool, email_id, SETTINGS)
    assert story is not None
    return story


async def test_a_story_has_every_attempt_with_its_begin_its_end_and_its_worker(pool: Pool) -> None:
    email_id = await store(pool)
    again = timedelta(0)
    await transitions.retry_later(pool, await claim(pool, email_id), error="busy", delay=again)
    await transitions.hand_back(pool, await claim(pool, email_id, worker="two"))
    await claim(pool, email_id, worker="three", lease=-LEASE)
    await claim(pool, email_id, worker="four", lease=-LEASE)
    await transitions.rescue_expired(pool, limit=1)
    await transitions.queue_again(pool, limit=1, depth=1)
    await transitions.rescue_unheard(pool, limit=1, lost_after=timedelta(0), is_idle=True)
    await transitions.fail(pool, await claim(pool, email_id, worker="five"), error="broken")
    await transitions.retry(pool, email_id, by="erika")
    last = await claim(pool, email_id, worker="six")
    await transitions.complete(pool, last, extracted_data=None, cleaned_body=None)
    story = await tell(pool, email_id)
    assert [event.what for event in story.events] == [
        "received: stored durably, and Zendesk was told 200",
        "processing: claimed by one",
        "attempt 1: busy (by one)",
        "processing: claimed by two",
        "handed back untried: its worker stopped (by two)",
        "processing: claimed by three",
        "attempt 2: its worker vanished (by three)",
        "processing: claimed by four",
        "attempt 2: its worker vanished (by four)",
        "its message was lost",
        "processing: claimed by five",
        "attempt 2: broken (by five)",
        "retried by erika",
        "processing: claimed by six, claim 1",
        "completed",
    ]


async def test_a_postponed_suspect_is_told_as_such_and_its_retry_as_a_retry(pool: Pool) -> None:
    email_id = await store(pool)
    await claim(pool, email_id, lease=-LEASE)
    await transitions.rescue_expired(pool, limit=1)
    await transitions.postpone_suspect(pool, email_id, delay=LEASE)
    story = await tell(pool, email_id)
    assert story.next_step.startswith("its message is sent again: a worker of it vanished")
    assert story.next_at is not None
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = NULL")
    await transitions.retry_later(pool, await claim(pool, email_id), error="busy", delay=LEASE)
    assert (await tell(pool, email_id)).next_step == "retry 1 of 5 begins"
