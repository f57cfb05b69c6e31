"""The transitions of `sync_status` on a real PostgreSQL: each from every state, with the token that
stands and with another, beside the job, operators and erasure."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import attrs
import pytest
from support import make_settings

from app.jobs.story import tell_story
from app.jobs.transitions import ending, erasing, operators
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import Completion, Failure
from app.sync import claims, transitions
from app.sync.asking import DeliveredEnds
from app.sync.breaker import MAKE
from app.sync.claims import Claimed, Source
from app.sync.transitions import End, Outcome, Result

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

RECEIVER = "crm.example.com 12345678"
LEASE = timedelta(minutes=5)
STARTED = datetime(2026, 11, 26, tzinfo=UTC)
STATES = ("pending", "synced", "failed", "not_applicable")
BOTH = DeliveredEnds(completed=True, failed=True)
COMPLETED_ALONE = DeliveredEnds(completed=True)


@pytest.fixture(autouse=True)
async def _receiver(pool: Pool) -> None:
    await pool.execute(MAKE, RECEIVER)


async def store(pool: Pool, *, job: str = "completed", **columns: Any) -> UUID:
    values: dict[str, Any] = {
        "processing_status": job,
        "from_email": "erika@example.com",
        "started_at": STARTED,
        "sync_status": "pending",
        "sync_next_attempt_at": STARTED,
        "sync_version": 1,
        **columns,
    }
    names, places = ", ".join(values), ", ".join(f"${n}" for n in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({names}) VALUES ({places}) RETURNING id", *values.values()
    )
    return email_id


async def read(pool: Pool, email_id: UUID) -> dict[str, Any]:
    return dict(await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id))


async def claim(pool: Pool, limit: int = 10, **options: Any) -> list[Claimed]:
    return await claims.claim_emails(
        pool,
        limit=limit,
        lease=LEASE,
        receiver=RECEIVER,
        most_body_bytes=1_000,
        most_data_bytes=1_000,
        **options,
    )


async def record(pool: Pool, *results: Result) -> list[End]:
    return await transitions.record(pool, Source.EMAILS, results, worker="w")


async def end_job(pool: Pool, email_id: UUID, delivered: DeliveredEnds, *, fail: bool) -> None:
    """A worker claims it, and its job ends."""
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'processing', started_at = $2"
        " WHERE id = $1",
        email_id,
        STARTED,
    )
    held = Claim(email_id, STARTED, 0, 0)
    if fail:
        ends = await ending.fail(pool, [Failure(held, "no")], delivered=delivered)
    else:
        ends = await ending.complete(pool, [Completion(held, "{}", "x")], delivered=delivered)
    assert ends == [ending.End.RECORDED]


async def test_the_end_of_a_job_asks_for_its_delivery_where_it_is_wanted(pool: Pool) -> None:
    cases = itertools.product(STATES, [False, True], [BOTH, COMPLETED_ALONE, DeliveredEnds()])
    for before, fail, delivered in cases:
        email_id = await store(pool, sync_status=before, sync_retry_count=3, sync_error="away")
        await end_job(pool, email_id, delivered, fail=fail)
        row = await read(pool, email_id)
        told = (before, fail, delivered)
        assert row["sync_version"] == 2, told
        if delivered.failed if fail else delivered.completed:
            assert (row["sync_status"], row["sync_retry_count"]) == ("pending", 0), told
            assert row["sync_error"] is None, told
            assert row["sync_next_attempt_at"] > STARTED, told
        else:
            left = "not_applicable" if before == "pending" else before
            assert (row["sync_status"], row["sync_retry_count"]) == (left, 3), told
            assert row["sync_next_attempt_at"] is None, told


@pytest.mark.parametrize("state", STATES)
async def test_only_what_is_pending_and_has_ended_is_claimed(pool: Pool, state: str) -> None:
    for job in ("received", "queued", "processing", "completed", "failed"):
        email_id = await store(pool, job=job, sync_status=state)
        before = await read(pool, email_id)
        claimed = await claim(pool)
        after = await read(pool, email_id)
        if state == "pending" and job in ("completed", "failed"):
            assert [(one.id, one.version, one.failed_tries) for one in claimed] == [
                (email_id, 1, 0)
            ]
            changed = {name for name in before if before[name] != after[name]}
            assert changed == {"sync_token", "sync_lease_expires_at"}
            assert await claim(pool) == []
        else:
            assert claimed == []
            assert after == before


async def test_an_operators_settlement_is_an_end_like_others(pool: Pool) -> None:
    email_id = await store(pool, job="failed", sync_status="not_applicable")
    options = {"by": "erika", "reason": "by phone", "delivered": COMPLETED_ALONE}
    assert await operators.settle(pool, email_id, **options)
    row = await read(pool, email_id)
    assert (row["sync_status"], row["sync_version"]) == ("pending", 2)


async def test_what_is_not_due_or_is_held_is_not_claimed(pool: Pool) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    await store(pool, sync_next_attempt_at=later)
    await store(pool, sync_token=uuid4(), sync_lease_expires_at=later)
    assert await claim(pool) == []


async def test_a_claim_that_ended_without_a_word_counts_as_a_try(pool: Pool) -> None:
    await store(pool, sync_token=uuid4(), sync_lease_expires_at=STARTED)
    [claimed] = await claim(pool)
    assert claimed.failed_tries == 1
    history = await pool.fetch("SELECT email, kind, attempt, text FROM email_events")
    told = (claimed.id, "delivery", 1, "the worker that delivered it vanished")
    assert [tuple(entry) for entry in history] == [told]
    assert await record(pool, Result(claimed, Outcome.SYNCED, told="delivered")) == [End.RECORDED]
    story = await tell_story(pool, claimed.id, make_settings())
    assert story is not None
    assert [event.what for event in story.events if event.what.startswith("deliver")] == [
        "delivery, try 1: the worker that delivered it vanished",
        "delivery, try 2: delivered (by w)",
    ]


RESULTS = {
    "synced": (Outcome.SYNCED, None, None, False),
    "failed": (Outcome.FAILED, "404", None, True),
    "later": (Outcome.LATER, "500", timedelta(minutes=5), True),
    "later, uncounted": (Outcome.LATER, "429", timedelta(minutes=5), False),
    "given back": (Outcome.LATER, None, None, False),
}


@pytest.mark.parametrize("name", RESULTS)
async def test_a_result_is_recorded_by_whose_token_stands(pool: Pool, name: str) -> None:
    outcome, error, delay, counts = RESULTS[name]
    email_id = await store(pool, sync_error="before")
    [claimed] = await claim(pool)
    held = await read(pool, email_id)
    result = Result(claimed, outcome, error, delay, counts, told=error)
    zombie = Result(attrs.evolve(claimed, token=uuid4()), outcome, error, delay, counts)
    assert await record(pool, zombie) == [End.LOST]
    assert await read(pool, email_id) == held
    assert await record(pool, result) == [End.RECORDED]
    row = await read(pool, email_id)
    assert (row["sync_token"], row["sync_lease_expires_at"]) == (None, None)
    assert row["sync_status"] == outcome
    assert row["sync_retry_count"] == int(counts)
    assert (row["synced_at"] is not None) == (outcome is Outcome.SYNCED)
    assert row["sync_error"] == ("before" if name == "given back" else error)
    if delay is not None:
        assert row["sync_next_attempt_at"] > datetime.now(UTC) + delay / 2
    elif outcome is Outcome.LATER:
        assert row["sync_next_attempt_at"] == STARTED
    else:
        assert row["sync_next_attempt_at"] is None
    sync = {column for column in row if column.startswith("sync")}
    assert {column for column in row if row[column] != held[column]} <= sync
    assert await record(pool, result) == [End.LOST]
    assert await read(pool, email_id) == row
    history = await pool.fetch("SELECT kind, worker, attempt, text FROM email_events")
    # What uses up no try has no number.
    told = ("delivery", "w", 1 if counts else None, error)
    assert [tuple(entry) for entry in history] == ([told] if error else [])


@pytest.mark.parametrize("lost_comes", ["first", "last"])
async def test_of_two_tries_of_an_email_that_end_at_once_that_counts_whose_token_stands(
    pool: Pool, lost_comes: str
) -> None:
    email_id = await store(pool)
    [claimed] = await claim(pool)
    lost = attrs.evolve(claimed, token=uuid4())
    results = [
        Result(lost, Outcome.SYNCED, told="delivered"),
        Result(claimed, Outcome.FAILED, "gone", counts=True, told="failed"),
    ]
    if lost_comes == "last":
        results.reverse()
    ends = [End.LOST if one.claimed is lost else End.RECORDED for one in results]
    assert await record(pool, *results) == ends
    row = await read(pool, email_id)
    assert (row["sync_status"], row["sync_error"]) == ("failed", "gone")
    assert await pool.fetchval("SELECT array_agg(text) FROM email_events") == ["failed"]


async def test_a_result_that_came_meanwhile_is_delivered_after_the_one_under_way(
    pool: Pool,
) -> None:
    """By the same worker or another, and not while the request before may still arrive."""
    email_id = await store(pool)
    [first] = await claim(pool)
    assert await operators.retry(pool, email_id, by="erika", force=True)
    assert await claim(pool) == []
    await end_job(pool, email_id, BOTH, fail=False)
    assert await claim(pool) == []
    assert await transitions.extend(pool, [first], lease=LEASE) == {first.token: True}
    assert await record(pool, Result(first, Outcome.SYNCED)) == [End.RECORDED]
    row = await read(pool, email_id)
    assert (row["sync_status"], row["sync_version"]) == ("pending", 2)
    [second] = await claim(pool)
    assert second.version == 2
    assert await record(pool, Result(second, Outcome.SYNCED)) == [End.RECORDED]
    assert (await read(pool, email_id))["sync_status"] == "synced"


async def test_an_erased_email_is_delivered_no_more_and_its_receiver_is_told(pool: Pool) -> None:
    known, pending, unknown = [
        await store(pool, sync_status=state, synced_at=STARTED if state == "synced" else None)
        for state in ("synced", "pending", "not_applicable")
    ]
    [held] = await claim(pool)
    async with pool.acquire() as connection, connection.transaction():
        ids = [known, pending, unknown]
        await erasing.empty(connection, ids, told="erased", whole=True)
    states = [(await read(pool, email_id))["sync_status"] for email_id in ids]
    assert states == ["synced", "not_applicable", "not_applicable"]
    events = await claims.claim_events(pool, limit=10, lease=LEASE, receiver=RECEIVER)
    # The other waits until the request that is under way has come to its end.
    assert [(one.columns["kind"], one.columns["email"]) for one in events] == [
        ("email.erased", known)
    ]
    # Which is cut, since its claim stands no longer.
    assert await transitions.extend(pool, [held], lease=LEASE) == {}
    assert await record(pool, Result(held, Outcome.SYNCED)) == [End.LOST]
    assert (await read(pool, pending))["sync_status"] == "not_applicable"
    told = [Result(events[0], Outcome.SYNCED)]
    [end] = await transitions.record(pool, Source.EVENTS, told, worker="w")
    assert end is End.RECORDED
    assert await pool.fetchval("SELECT count(*) FROM sync_events WHERE synced_at IS NOT NULL") == 1


@pytest.mark.parametrize("tried", ["in vain", "right now", "cut", "never"])
async def test_of_an_erasure_is_told_who_may_have_a_result_that_is_delivered_no_more(
    pool: Pool, tried: str
) -> None:
    """Its request may have arrived, whatever was heard of it. The result after it is delivered to
    nobody, as that of a job which failed."""
    email_id = await store(pool, sync_status="pending" if tried != "never" else "not_applicable")
    if tried != "never":
        [claimed] = await claim(pool)
    if tried == "in vain":
        later = Result(claimed, Outcome.LATER, "time-out", timedelta(0), counts=True)
        await record(pool, later)
    elif tried == "cut":
        await record(pool, Result(claimed, Outcome.LATER))
    if tried in ("in vain", "cut"):
        # The next result was to be delivered, and nobody has tried that.
        await end_job(pool, email_id, COMPLETED_ALONE, fail=False)
    await end_job(pool, email_id, COMPLETED_ALONE, fail=True)
    assert (await read(pool, email_id))["sync_status"] == "not_applicable"
    assert await transitions.tell_erased(pool, [email_id]) == (tried != "never")


async def test_a_row_that_somebody_has_locked_holds_up_no_other(pool: Pool) -> None:
    ids = sorted([await store(pool) for _ in range(3)])
    claimed = sorted(await claim(pool), key=lambda one: one.id)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", ids[1])
        results = [Result(one, Outcome.SYNCED) for one in claimed]
        assert await record(pool, *results) == [End.RECORDED, End.BUSY, End.RECORDED]
        standing = await transitions.extend(pool, claimed, lease=LEASE)
        assert standing == {claimed[1].token: False}
    assert await record(pool, *results) == [End.LOST, End.RECORDED, End.LOST]


async def test_workers_that_claim_at_once_share_what_is_due(pool: Pool) -> None:
    for _ in range(40):
        await store(pool)
    shares = await asyncio.gather(*(claim(pool, limit=15) for _ in range(4)))
    ids = [one.id for share in shares for one in share]
    assert len(ids) == len(set(ids)) == 40


async def test_in_the_order_of_a_ticket_an_email_waits_for_the_earlier_ones(pool: Pool) -> None:
    put_off = timedelta(hours=1)

    async def of_ticket(ticket: str, minute: int, **columns: Any) -> UUID:
        at = STARTED + timedelta(minutes=minute)
        return await store(pool, zendesk_ticket_id=ticket, received_at=at, **columns)

    second = await of_ticket("1", 2)
    first = await of_ticket("1", 1)
    third = await of_ticket("1", 3)
    after_failed = await of_ticket("2", 2)
    await of_ticket("2", 1, sync_status="failed")
    in_job = await of_ticket("3", 1, job="queued", sync_status="not_applicable")
    after_job = await of_ticket("3", 2)
    alone = await of_ticket("4", 1)

    claimed = {one.id: one for one in await claim(pool, put_off=put_off)}
    assert set(claimed) == {first, after_failed, alone}
    assert await claim(pool, put_off=put_off) == []
    for waiting in (second, third, after_job):
        assert (await read(pool, waiting))["sync_next_attempt_at"] > STARTED
    # A try that failed is no end.
    await record(pool, Result(claimed[first], Outcome.LATER, "500", timedelta(0), counts=True))
    [again] = await claim(pool, put_off=put_off)
    assert again.id == first
    await record(pool, Result(again, Outcome.SYNCED))
    await transitions.let_next_go(pool, [first])
    [next_one] = await claim(pool, put_off=put_off)
    assert next_one.id == second
    await record(pool, Result(next_one, Outcome.FAILED, "404", counts=True))
    await transitions.let_next_go(pool, [second])
    assert [one.id for one in await claim(pool, put_off=put_off)] == [third]
    # What is delivered when its job has ended lets the next go, too.
    await end_job(pool, in_job, BOTH, fail=False)
    [ended] = await claim(pool, put_off=put_off)
    await record(pool, Result(ended, Outcome.SYNCED))
    await transitions.let_next_go(pool, [in_job])
    assert [one.id for one in await claim(pool, put_off=put_off)] == [after_job]


async def test_an_email_is_told_its_number_in_its_ticket_and_its_files(pool: Pool) -> None:
    for minute in range(3):
        at = STARTED + timedelta(minutes=minute)
        await store(pool, zendesk_ticket_id="1", received_at=at, subject=str(minute))
    await store(pool, zendesk_ticket_id="2", subject="other", raw_body_text="x" * 2_000)
    rows = {one.columns["subject"]: one.columns for one in await claim(pool)}
    numbers = {subject: row["ticket_number"] for subject, row in rows.items()}
    assert numbers == {"0": 1, "1": 2, "2": 3, "other": 1}
    assert rows["other"]["body_text"] is None
    assert rows["other"]["is_long_body_text"]
    assert not rows["0"]["is_long_body_text"]
