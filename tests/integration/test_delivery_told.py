"""What the story of an email tells of its delivery, and what comes next of it."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from support import make_settings

from app.jobs.story import Story, tell_story
from app.settings import Settings
from app.sync.breaker import MAKE
from app.sync.counts import receiver_of

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=1)
DELIVERING = make_settings(
    sync_url="https://crm.example.com/",
    sync_secrets="whsec_" + "bWFpbHJvb20tdGVzdHMtYXJlLXNpZ25lZC1ieS10aGlz",
)
EARLIER = NOW - timedelta(hours=1)


async def told(pool: Pool, settings: Settings = DELIVERING, **columns: Any) -> Story:
    columns = {"processing_status": "completed", "completed_at": EARLIER, **columns}
    numbers = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(columns)}) VALUES ({numbers}) RETURNING id",
        *columns.values(),
    )
    story = await tell_story(pool, email_id, settings)
    assert story is not None
    return story


@pytest.mark.parametrize(
    ("columns", "step", "at"),
    [
        ({}, "nothing: it is done", None),
        ({"sync_status": "synced", "synced_at": NOW}, "nothing: it is done", None),
        (
            {"sync_status": "pending", "sync_retry_count": 2, "sync_next_attempt_at": LATER},
            "try 3 to deliver it begins",
            LATER,
        ),
        (
            {"sync_status": "pending", "sync_next_attempt_at": EARLIER},
            "a worker delivers it",
            None,
        ),
        (
            {
                "sync_status": "pending",
                "sync_next_attempt_at": EARLIER,
                "sync_lease_expires_at": LATER,
            },
            "try 1 to deliver it ends; if its worker vanished, another delivers it",
            LATER,
        ),
        # Its job comes first.
        (
            {"processing_status": "received", "completed_at": None, "sync_status": "failed"},
            "a worker's Dispatcher queues it, the oldest email first",
            None,
        ),
    ],
)
async def test_the_next_step_of_the_delivery_is_told(
    pool: Pool, columns: dict[str, Any], step: str, at: datetime | None
) -> None:
    story = await told(pool, **columns)
    assert (story.next_step, story.next_at) == (step, at)


async def test_what_was_delivered_is_told_after_the_end_of_its_job(pool: Pool) -> None:
    story = await told(pool, sync_status="synced", synced_at=NOW)
    assert [event.what for event in story.events[:2]] == [
        "completed",
        "delivered",
    ]


async def test_a_delivery_that_was_given_up_is_told_with_its_reason_and_its_mend(
    pool: Pool,
) -> None:
    story = await told(pool, sync_status="failed", sync_error="the receiver answered 503")
    assert "the receiver answered 503" in story.next_step
    assert f"mailroom reconcile --id {story.id} --apply" in story.next_step


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("state = 'closed'", "a worker delivers it"),
        ("state = 'open'", "its receiver is down"),
        ("paused_at = now()", "`mailroom sync resume`"),
        ("rests_until = now() + interval '1 hour'", "its receiver asked to be left alone"),
    ],
)
async def test_what_holds_up_all_deliveries_is_told(pool: Pool, changes: str, said: str) -> None:
    await pool.execute(MAKE, receiver_of(DELIVERING))
    await pool.execute(f"UPDATE sync_receivers SET {changes}")
    due = {"sync_status": "pending", "sync_next_attempt_at": EARLIER}
    assert said in (await told(pool, **due)).next_step
    nowhere = await told(pool, make_settings(), **due)
    assert "MAILROOM_SYNC_URL" in nowhere.next_step
