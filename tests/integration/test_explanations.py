"""What Mailroom tells of an email, on the ways that real transitions take."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import one_email
import pytest
from support import make_settings

from app.jobs.claimer import SUSPECT_PAUSE
from app.jobs.story import Story, tell_story
from app.jobs.stuck import find_stuck
from app.jobs.transitions import claiming, dispatching, keeping, operators
from app.jobs.transitions.common import Claim

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
    made = await one_email.claim(pool, email_id, lease=lease, worker=worker)
    assert isinstance(made, tuple)
    return made[0]


async def tell(pool: Pool, email_id: UUID) -> Story:
    story = await tell_story(pool, email_id, SETTINGS)
    assert story is not None
    return story


async def age(pool: Pool) -> None:
    """Let a day pass for all emails."""
    await pool.execute(
        """
        UPDATE incoming_emails SET
            created_at = created_at - $1::interval, updated_at = updated_at - $1::interval,
            queued_at = queued_at - $1::interval, started_at = started_at - $1::interval,
            next_attempt_at = next_attempt_at - $1::interval,
            lease_expires_at = lease_expires_at - $1::interval,
            completed_at = completed_at - $1::interval,
            attempt_errors = (
                SELECT COALESCE(jsonb_agg(entry || moments), '[]')
                FROM jsonb_array_elements(attempt_errors) AS entry, LATERAL (
                    SELECT COALESCE(jsonb_object_agg(
                        key, (value #>> '{}')::timestamptz - $1::interval
                    ), '{}') AS moments
                    FROM jsonb_each(entry)
                    WHERE key IN ('at', 'started_at', 'next_attempt_at')
                ) AS earlier
            )
        """,
        A_DAY,
    )


async def is_stuck(pool: Pool) -> bool:
    return await find_stuck(pool, SETTINGS, limit=10) != []


async def test_a_story_has_every_attempt_with_its_begin_its_end_and_its_worker(pool: Pool) -> None:
    email_id = await store(pool)
    again = timedelta(0)
    await one_email.retry_later(pool, await claim(pool, email_id), error="busy", delay=again)
    await one_email.hand_back(pool, await claim(pool, email_id, worker="two"))
    await claim(pool, email_id, worker="three", lease=-LEASE)
    await claim(pool, email_id, worker="four", lease=-LEASE)
    await keeping.rescue_expired(pool, limit=1)
    await dispatching.queue(pool, limit=1, depth=1)
    await keeping.rescue_unheard(pool, limit=1, lost_after=timedelta(0), is_idle=True)
    await one_email.fail(pool, await claim(pool, email_id, worker="five"), error="broken")
    await operators.retry(pool, email_id, by="erika")
    last = await claim(pool, email_id, worker="six")
    await one_email.complete(pool, last, extracted_data=None, cleaned_body=None)
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
    await keeping.rescue_expired(pool, limit=1)
    await claiming.postpone_suspect(pool, email_id, delay=LEASE)
    story = await tell(pool, email_id)
    assert story.next_step.startswith("its message is sent again: a worker of it vanished")
    assert story.next_at is not None
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = NULL")
    await one_email.retry_later(pool, await claim(pool, email_id), error="busy", delay=LEASE)
    assert (await tell(pool, email_id)).next_step == "retry 1 of 5 begins"


async def dispatch(pool: Pool, email_id: UUID) -> None:
    sent = [queued.email_id for queued in await dispatching.queue(pool, limit=1, depth=1)]
    assert sent == [email_id]


async def retry_later(pool: Pool, email_id: UUID) -> None:
    held = await claim(pool, email_id)
    await age(pool)
    assert await one_email.retry_later(pool, held_since(held), error="busy", delay=A_DAY / 24)


async def retry_a_suspect_later(pool: Pool, email_id: UUID) -> None:
    await rescue_expired(pool, email_id)
    await retry_later(pool, email_id)


async def hand_back(pool: Pool, email_id: UUID) -> None:
    held = await claim(pool, email_id)
    await age(pool)
    assert await one_email.hand_back(pool, held_since(held))


async def rescue_expired(pool: Pool, email_id: UUID) -> None:
    await claim(pool, email_id)
    await age(pool)
    assert await keeping.rescue_expired(pool, limit=1) == [email_id]


async def retry_by_operator(pool: Pool, email_id: UUID) -> None:
    assert await one_email.fail(pool, await claim(pool, email_id), error="broken")
    await age(pool)
    assert await operators.retry(pool, email_id, by="erika")


def held_since(claim: Claim) -> Claim:
    """A claim whose email has aged."""
    return Claim(claim.email_id, claim.started_at - A_DAY, claim.retry_count, claim.lost_claims)


@pytest.mark.parametrize(
    "enter",
    [
        dispatch,
        retry_later,
        retry_a_suspect_later,
        hand_back,
        rescue_expired,
        retry_by_operator,
    ],
)
async def test_what_is_queued_is_stuck_if_no_worker_comes_though_messages_are_sent_again(
    pool: Pool, enter: Callable[[Pool, UUID], Awaitable[None]]
) -> None:
    email_id = await store(pool)
    await enter(pool, email_id)
    assert (await tell(pool, email_id)).status == "queued"
    assert not await is_stuck(pool)
    await age(pool)
    if enter is not dispatch:
        await dispatch(pool, email_id)
    assert await is_stuck(pool)
    for _ in range(2):
        # Whether it was lost or not: it looks so after some time.
        await pool.execute("UPDATE incoming_emails SET queued_at = queued_at - $1::interval", A_DAY)
        assert await keeping.rescue_unheard(pool, limit=1, lost_after=LOST_AFTER, is_idle=True) == [
            email_id
        ]
        assert await is_stuck(pool)
        await dispatch(pool, email_id)
        assert await is_stuck(pool)
    await claim(pool, email_id)
    assert not await is_stuck(pool)


async def test_a_suspect_whose_turn_never_comes_is_stuck(pool: Pool) -> None:
    email_id = await store(pool)
    await rescue_expired(pool, email_id)
    for _ in range(2):
        await dispatch(pool, email_id)
        assert await claiming.postpone_suspect(pool, email_id, delay=SUSPECT_PAUSE)
        assert not await is_stuck(pool)
        await pool.execute("UPDATE incoming_emails SET next_attempt_at = now()")
    await age(pool)
    await dispatch(pool, email_id)
    assert await claiming.postpone_suspect(pool, email_id, delay=SUSPECT_PAUSE)
    assert await is_stuck(pool)


async def test_a_long_pause_before_a_retry_is_not_stuck(pool: Pool) -> None:
    email_id = await store(pool)
    for lease in (-LEASE, LEASE):
        held = await claim(pool, email_id, lease=lease)
    assert await one_email.retry_later(pool, held, error="busy", delay=3 * A_DAY)
    await age(pool)
    assert not await is_stuck(pool)


async def test_what_is_in_work_longer_than_its_handler_may_run_is_stuck(pool: Pool) -> None:
    email_id = await store(pool)
    held = await claim(pool, email_id)
    assert not await is_stuck(pool)
    await age(pool)
    # Its worker lives.
    assert await keeping.extend_leases(pool, [held_since(held)], lease=LEASE)
    assert await is_stuck(pool)


async def test_what_lost_its_worker_is_stuck_if_no_rescuer_comes(pool: Pool) -> None:
    await claim(pool, await store(pool))
    await pool.execute("UPDATE incoming_emails SET lease_expires_at = now() - $1::interval", A_DAY)
    assert await is_stuck(pool)


async def test_an_email_that_waits_long_in_the_backlog_is_listed(pool: Pool) -> None:
    await store(pool)
    assert not await is_stuck(pool)
    await age(pool)
    assert await is_stuck(pool)
