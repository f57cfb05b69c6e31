"""The state machine: what each transition may leave, what it sets, and whom it obeys."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import attrs
import one_email
import pytest
from support import WAIT_SECONDS

from app.api.emails import count_matching, retry_failed
from app.api.search import Search
from app.jobs.dispatcher import Dispatcher
from app.jobs.stuck import SELECT_STUCK
from app.jobs.transitions import claiming, dispatching, ending, erasing, keeping, operators
from app.jobs.transitions.claiming import Refusal
from app.jobs.transitions.common import Claim
from app.jobs.transitions.dispatching import Queued
from app.models import entries as bounds
from app.models.incoming_email import ProcessingStatus

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Row: TypeAlias = dict[str, Any]

STATES = ["received", "queued", "processing", "completed", "failed"]
LEASE = timedelta(seconds=60)
LOST_AFTER = timedelta(seconds=120)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)

# What a row looks like in each state, every column that a transition may set being filled.
BASE: Row = {
    "from_email": "erika@example.com",
    "subject": "Hallo",
    "received_at": LONG_AGO,
    "created_at": LONG_AGO,
    "updated_at": LONG_AGO,
    "retry_count": 2,
    "claims": 4,
    "lost_claims": 1,
    "attempt_errors": '[{"at": "2026-01-01", "attempt": 1, "error": "first"}]',
}
IN_STATE: dict[str, Row] = {
    "received": {"retry_count": 0, "claims": 0, "lost_claims": 0, "attempt_errors": "[]"},
    "queued": {"queued_at": LONG_AGO, "started_at": TOKEN, "next_attempt_at": LONG_AGO},
    "processing": {"queued_at": LONG_AGO, "started_at": TOKEN, "lease_expires_at": LONG_AGO},
    "completed": {
        "queued_at": LONG_AGO,
        "started_at": TOKEN,
        "completed_at": LONG_AGO,
        "processed_at": LONG_AGO,
        "extracted_data": '{"a": 1}',
        "cleaned_body": "Hallo",
    },
    "failed": {
        "queued_at": LONG_AGO,
        "started_at": TOKEN,
        "completed_at": LONG_AGO,
        "processed_at": LONG_AGO,
        "processing_error": "it broke",
    },
}


async def store(pool: Pool, state: str = "received", **columns: Any) -> UUID:
    """Store a row in a state. Returns its id."""
    values = {**BASE, **IN_STATE[state], "processing_status": state, **columns}
    names = ", ".join(values)
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({names}) VALUES ({places}) RETURNING id", *values.values()
    )
    return email_id


async def read(pool: Pool, email_id: UUID) -> Row:
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    return dict(row)


async def now(pool: Pool) -> datetime:
    moment: datetime = await pool.fetchval("SELECT now()")
    return moment


def changes(before: Row, after: Row) -> Row:
    """The columns that differ, with their new values."""
    return {name: value for name, value in after.items() if before[name] != value}


async def queue(database: Any, *, limit: int, depth: int, odd_to_fresh: bool = True) -> list[UUID]:
    """Queue emails. Returns their ids, in the order in which they are to be sent."""
    queued = await dispatching.queue(database, limit=limit, depth=depth, odd_to_fresh=odd_to_fresh)
    return [one.email_id for one in queued]


async def claimed(pool: Pool, email_id: UUID, *, lease: timedelta = LEASE) -> Claim:
    made = await one_email.claim(pool, email_id, lease=lease, worker="a worker")
    assert isinstance(made, tuple)
    return made[0]


def standing(email_id: UUID) -> Claim:
    """The claim of a row that `store` put into `processing`."""
    return Claim(email_id, TOKEN, retry_count=2, lost_claims=1)


@attrs.frozen
class Step:
    """One transition, as it is called for one email."""

    name: str
    call: Callable[[Pool, UUID], Awaitable[object]]
    leaves: Sequence[str]
    """The states of `IN_STATE` that it leaves."""

    to: str
    sets: frozenset[str]
    """The columns it sets, besides `processing_status` and `updated_at`."""


STEPS = [
    Step(
        "queue",
        lambda pool, _: dispatching.queue(pool, limit=10, depth=10),
        ["received"],
        "queued",
        frozenset({"queued_at"}),
    ),
    Step(
        "unqueue",
        lambda pool, email_id: dispatching.unqueue(
            pool, [Queued(email_id, LONG_AGO, True, LONG_AGO, None, 0)]
        ),
        ["queued"],
        "received",
        frozenset({"queued_at"}),
    ),
    Step(
        "unqueue what was sent again",
        lambda pool, email_id: dispatching.unqueue(
            pool, [Queued(email_id, LONG_AGO, False, LONG_AGO, None, 0)]
        ),
        ["queued"],
        "queued",
        frozenset({"queued_at"}),
    ),
    Step(
        "claim",
        lambda pool, email_id: one_email.claim(pool, email_id, lease=LEASE, worker="a worker"),
        ["received", "queued", "processing"],
        "processing",
        frozenset(
            {
                "started_at",
                "lease_expires_at",
                "claims",
                "lost_claims",
                "claimed_by",
                "claim_token",
                "next_attempt_at",
                "attempt_errors",
            }
        ),
    ),
    Step(
        "complete",
        lambda pool, email_id: one_email.complete(
            pool, standing(email_id), extracted_data='{"b": 2}', cleaned_body="Tag"
        ),
        ["processing"],
        "completed",
        frozenset(
            {
                "completed_at",
                "processed_at",
                "extracted_data",
                "cleaned_body",
                "lease_expires_at",
                "sync_version",
            }
        ),
    ),
    Step(
        "retry_later",
        lambda pool, email_id: one_email.retry_later(
            pool, standing(email_id), error="again", delay=timedelta(seconds=30)
        ),
        ["processing"],
        "queued",
        frozenset(
            {"queued_at", "next_attempt_at", "retry_count", "lease_expires_at", "attempt_errors"}
        ),
    ),
    Step(
        "postpone_suspect",
        lambda pool, email_id: claiming.postpone_suspect(
            pool, email_id, delay=timedelta(seconds=5)
        ),
        ["queued"],
        "queued",
        frozenset({"queued_at", "next_attempt_at"}),
    ),
    Step(
        "fail",
        lambda pool, email_id: one_email.fail(pool, standing(email_id), error="never"),
        ["processing"],
        "failed",
        frozenset(
            {
                "completed_at",
                "processed_at",
                "processing_error",
                "lease_expires_at",
                "attempt_errors",
                "sync_version",
            }
        ),
    ),
    Step(
        "hand_back",
        lambda pool, email_id: one_email.hand_back(pool, standing(email_id)),
        ["processing"],
        "queued",
        frozenset({"queued_at", "claims", "lease_expires_at", "attempt_errors"}),
    ),
    Step(
        "extend_leases",
        lambda pool, email_id: keeping.extend_leases(pool, [standing(email_id)], lease=LEASE),
        ["processing"],
        "processing",
        frozenset({"lease_expires_at"}),
    ),
    Step(
        "rescue_expired",
        lambda pool, _: keeping.rescue_expired(pool, limit=10),
        ["processing"],
        "queued",
        frozenset({"queued_at", "lease_expires_at", "lost_claims", "attempt_errors"}),
    ),
    Step(
        "rescue_unheard",
        lambda pool, _: keeping.rescue_unheard(pool, limit=10, lost_after=LOST_AFTER, is_idle=True),
        ["queued"],
        "queued",
        frozenset({"queued_at", "attempt_errors"}),
    ),
    Step(
        "retry",
        lambda pool, email_id: operators.retry(pool, email_id, by="erika"),
        ["failed"],
        "queued",
        frozenset(
            {
                "queued_at",
                "completed_at",
                "processed_at",
                "processing_error",
                "next_attempt_at",
                "retry_count",
                "claims",
                "lost_claims",
                "attempt_errors",
            }
        ),
    ),
    Step(
        "retry_many",
        lambda pool, email_id: operators.retry_many(pool, [email_id, uuid4()], by="erika"),
        ["failed"],
        "queued",
        frozenset(
            {
                "queued_at",
                "completed_at",
                "processed_at",
                "processing_error",
                "next_attempt_at",
                "retry_count",
                "claims",
                "lost_claims",
                "attempt_errors",
            }
        ),
    ),
    Step(
        "retry, forced",
        lambda pool, email_id: operators.retry(pool, email_id, by="erika", force=True),
        ["failed", "completed"],
        "queued",
        frozenset(
            {
                "queued_at",
                "completed_at",
                "processed_at",
                "processing_error",
                "next_attempt_at",
                "retry_count",
                "claims",
                "lost_claims",
                "attempt_errors",
            }
        ),
    ),
    Step(
        "settle",
        lambda pool, email_id: operators.settle(pool, email_id, by="erika", reason="by phone"),
        ["failed"],
        "completed",
        frozenset({"completed_at", "processing_error", "attempt_errors", "sync_version"}),
    ),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_a_transition_leaves_its_own_states_only_and_sets_its_own_columns_only(
    pool: Pool, step: Step
) -> None:
    neighbour = await store(pool, "completed")
    neighbour_before = await read(pool, neighbour)
    for state in STATES:
        email_id = await store(pool, state)
        before = await read(pool, email_id)
        answer = await step.call(pool, email_id)
        after = await read(pool, email_id)
        assert await read(pool, neighbour) == neighbour_before
        await pool.execute("DELETE FROM incoming_emails WHERE id = $1", email_id)
        if state not in step.leaves:
            assert not answer or answer is Refusal.NO_WORK, state
            assert after == before, state
            continue
        assert answer, state
        assert after["processing_status"] == step.to, state
        changed = set(changes(before, after)) - {"processing_status", "updated_at"}
        assert changed <= step.sets, state
        for name in step.sets - changed:
            # Some columns are set to null and are null already in some states, and a claim tells
            # of an earlier one only where it takes over.
            is_first_claim = step.name == "claim" and state != "processing"
            is_untold = name in ("attempt_errors", "lost_claims") and is_first_claim
            assert is_untold or before[name] is after[name] is None, (state, name)
        if step.name != "extend_leases":
            assert after["updated_at"] > before["updated_at"], state


async def test_only_queued_emails_without_a_message_that_are_due_are_sent_again(
    pool: Pool,
) -> None:
    states = [state for state in STATES if state != "received"]
    with_message = [await store(pool, state, queued_at=LONG_AGO) for state in states]
    unsent = {state: await store(pool, state, queued_at=None) for state in states}
    later = await now(pool) + timedelta(hours=1)
    not_due = await store(pool, "queued", queued_at=None, next_attempt_at=later)
    others = [*with_message, not_due, *(unsent[state] for state in states if state != "queued")]
    others_before = [await read(pool, email_id) for email_id in others]
    before = await read(pool, unsent["queued"])
    assert await queue(pool, limit=10, depth=10) == [unsent["queued"]]
    after = await read(pool, unsent["queued"])
    assert set(changes(before, after)) == {"queued_at", "updated_at"}
    assert await queue(pool, limit=10, depth=10) == []
    assert [await read(pool, email_id) for email_id in others] == others_before


async def test_the_way_of_an_email_sets_the_moments_and_counts(pool: Pool) -> None:
    start = await now(pool)
    email_id = await store(pool)
    assert await queue(pool, limit=1, depth=1) == [email_id]
    row = await read(pool, email_id)
    assert row["queued_at"] >= start
    first = await claimed(pool, email_id)
    row = await read(pool, email_id)
    assert row["started_at"] == first.started_at >= start
    assert row["lease_expires_at"] >= start + LEASE
    assert (row["claims"], row["retry_count"]) == (1, 0)
    assert first.lost_claims == 0
    assert await one_email.retry_later(pool, first, error="away", delay=timedelta(hours=1))
    row = await read(pool, email_id)
    assert row["next_attempt_at"] >= start + timedelta(hours=1)
    assert row["completed_at"] is None
    refused = await one_email.claim(pool, email_id, lease=LEASE, worker="a worker")
    assert refused is Refusal.NO_WORK
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = now()")
    second = await claimed(pool, email_id)
    assert (second.retry_count, second.lost_claims) == (1, 0)
    assert (await read(pool, email_id))["claims"] == 2
    assert second.started_at > first.started_at
    assert await one_email.fail(pool, second, error="broken")
    row = await read(pool, email_id)
    assert row["processing_error"] == "broken"
    assert row["completed_at"] == row["processed_at"] >= start
    assert row["lease_expires_at"] is None
    errors = json.loads(row["attempt_errors"])
    assert [(e["attempt"], e["error"]) for e in errors] == [(1, "away"), (2, "broken")]
    assert all(datetime.fromisoformat(e["at"]) >= start for e in errors)
    assert await operators.retry(pool, email_id, by="erika")
    row = await read(pool, email_id)
    assert (row["claims"], row["retry_count"]) == (0, 0)
    assert row["processing_error"] is row["completed_at"] is row["queued_at"] is None
    assert json.loads(row["attempt_errors"])[-1]["error"] == "retried by erika"
    assert await queue(pool, limit=1, depth=1) == [email_id]
    third = await claimed(pool, email_id)
    assert (third.retry_count, third.lost_claims) == (0, 0)
    assert (await read(pool, email_id))["claims"] == 1
    assert await one_email.complete(pool, third, extracted_data='{"n": 1}', cleaned_body="x")
    row = await read(pool, email_id)
    assert json.loads(row["extracted_data"]) == {"n": 1}
    assert row["cleaned_body"] == "x"
    assert row["completed_at"] > third.started_at
    assert len(json.loads(row["attempt_errors"])) == 3


@pytest.mark.parametrize("limit", [1, 4, 5])
@pytest.mark.parametrize("has_fresh", [False, True])
async def test_what_was_brought_back_goes_before_retries_and_those_as_they_fell_due(
    pool: Pool, limit: int, has_fresh: bool
) -> None:
    moment = await now(pool)
    retry, earlier_retry = [
        await store(
            pool,
            "queued",
            queued_at=None,
            next_attempt_at=moment - timedelta(seconds=seconds),
            received_at=LONG_AGO,
        )
        for seconds in (1, 2)
    ]
    newer, older = [
        await store(
            pool, "queued", queued_at=None, next_attempt_at=None, received_at=moment - age * LEASE
        )
        for age in (1, 2)
    ]
    fresh = [await store(pool, "received")] if has_fresh else []
    sent: list[UUID] = []
    while batch := await queue(pool, limit=limit, depth=10):
        sent += batch
    assert sent == [*fresh, older, newer, earlier_retry, retry]


async def test_an_email_that_an_older_desk_retried_begins_anew(pool: Pool) -> None:
    email_id = await store(pool, "queued", queued_at=None, claims=0, lost_claims=3)
    made = await one_email.claim(pool, email_id, lease=LEASE, worker="one", suspects=False)
    assert isinstance(made, tuple)
    assert made[0].lost_claims == 0
    row = await read(pool, email_id)
    assert (row["claims"], row["lost_claims"]) == (1, 0)


async def test_retries_leave_room_in_the_broker_as_new_emails_do(pool: Pool) -> None:
    await store(pool, "queued", next_attempt_at=None)
    for _ in range(3):
        await store(pool, "queued", queued_at=None)
    assert len(await queue(pool, limit=10, depth=3)) == 2
    await store(pool, "received")
    assert await queue(pool, limit=10, depth=3) == []
    assert len(await queue(pool, limit=10, depth=5)) == 2


@attrs.frozen
class Shares:
    """What each kind gets of a batch."""

    again: int
    fresh: int
    limit: int
    odd_to_fresh: bool
    expected: tuple[int, int]


@pytest.mark.parametrize(
    "shares",
    [
        Shares(9, 9, 4, True, (2, 2)),
        Shares(9, 9, 5, True, (2, 3)),
        Shares(9, 9, 5, False, (3, 2)),
        Shares(9, 9, 1, True, (0, 1)),
        Shares(9, 9, 1, False, (1, 0)),
        Shares(1, 9, 6, True, (1, 5)),
        Shares(9, 1, 6, True, (5, 1)),
        Shares(0, 9, 6, False, (0, 6)),
        Shares(9, 0, 6, True, (6, 0)),
        Shares(1, 1, 6, True, (1, 1)),
        Shares(0, 0, 6, True, (0, 0)),
    ],
    ids=str,
)
async def test_fresh_emails_and_those_sent_again_share_each_batch(
    pool: Pool, shares: Shares
) -> None:
    moment = await now(pool)
    again = [
        await store(pool, "queued", queued_at=None, next_attempt_at=moment - n * LEASE)
        for n in range(shares.again, 0, -1)
    ]
    fresh = [
        await store(pool, received_at=LONG_AGO + n * timedelta(minutes=1))
        for n in range(shares.fresh)
    ]
    taken = await queue(pool, limit=shares.limit, depth=100, odd_to_fresh=shares.odd_to_fresh)
    of_again, of_fresh = shares.expected
    # Each kind in its own order, and the two by turns.
    assert [one for one in taken if one in again] == again[:of_again]
    assert [one for one in taken if one in fresh] == fresh[:of_fresh]
    assert len(taken) == of_again + of_fresh
    if of_again and of_fresh:
        assert taken[:2] == [fresh[0], again[0]]


async def test_what_was_not_sent_is_as_before_unless_somebody_has_it_by_now(pool: Pool) -> None:
    back = await store(pool, "queued", queued_at=None)
    fresh, claimed_since, sent_since = [await store(pool) for _ in range(3)]
    queued = await dispatching.queue(pool, limit=10, depth=10)
    await claimed(pool, claimed_since)
    # Another Dispatcher sent it after a Rescuer took its message for lost.
    await pool.execute(
        "UPDATE incoming_emails SET queued_at = queued_at + interval '1 second' WHERE id = $1",
        sent_since,
    )
    assert set(await dispatching.unqueue(pool, queued)) == {back, fresh}
    rows = {email_id: await read(pool, email_id) for email_id in (back, fresh)}
    assert {row["processing_status"] for row in rows.values()} == {"queued", "received"}
    assert rows[back]["processing_status"] == "queued"
    assert rows[back]["queued_at"] is rows[fresh]["queued_at"] is None
    assert (await read(pool, claimed_since))["processing_status"] == "processing"
    assert (await read(pool, sent_since))["queued_at"] is not None


async def test_a_retry_of_very_many_does_not_go_before_those_that_were_due(pool: Pool) -> None:
    due = await store(
        pool, "queued", queued_at=None, next_attempt_at=await now(pool) - timedelta(seconds=1)
    )
    failed = [await store(pool, "failed", received_at=LONG_AGO + n * LEASE) for n in range(3)]
    assert set(await operators.retry_many(pool, failed, by="erika")) == set(failed)
    assert await queue(pool, limit=4, depth=10) == [due, *failed]


async def test_retries_that_wait_for_their_time_take_no_room_in_the_broker(pool: Pool) -> None:
    later = await now(pool) + timedelta(hours=1)
    for _ in range(3):
        await store(pool, "queued", queued_at=None, next_attempt_at=later)
    email_id = await store(pool)
    assert await queue(pool, limit=10, depth=1) == [email_id]


async def test_an_email_that_does_not_exist_changes_nothing(pool: Pool) -> None:
    await store(pool, "processing")
    nobody = Claim(uuid4(), TOKEN, retry_count=0, lost_claims=0)
    refused = await one_email.claim(pool, nobody.email_id, lease=LEASE, worker="a worker")
    assert refused is Refusal.NO_WORK
    assert not await one_email.complete(pool, nobody, extracted_data=None, cleaned_body=None)
    assert not await one_email.fail(pool, nobody, error="x")
    assert not await operators.retry(pool, nobody.email_id, by="erika", force=True)
    assert await keeping.extend_leases(pool, [], lease=LEASE) == {}


async def test_a_claim_is_held_until_its_lease_runs_out(pool: Pool) -> None:
    email_id = await store(pool)
    first = await claimed(pool, email_id)
    refused = await one_email.claim(pool, email_id, lease=LEASE, worker="a worker")
    assert refused is Refusal.NO_WORK
    await pool.execute("UPDATE incoming_emails SET lease_expires_at = now() - interval '1 second'")
    second = await claimed(pool, email_id)
    assert second.started_at > first.started_at
    assert second.lost_claims == 1


async def test_a_claim_whose_answer_was_lost_is_the_same_when_it_is_made_again(pool: Pool) -> None:
    email_id = await store(pool)
    token = uuid4()

    async def claim(**differing: Any) -> Claim | Refusal:
        arguments: Any = {"lease": LEASE, "worker": "a worker", "token": token, **differing}
        made = await one_email.claim(pool, email_id, **arguments)
        return made[0] if isinstance(made, tuple) else made

    first = await claim()
    await pool.execute("UPDATE incoming_emails SET lease_expires_at = now() + interval '1 second'")
    before = await read(pool, email_id)
    # As a suspect or not, and whether or not others may be taken over.
    for differing in ({}, {"suspects": False}, {"takes_over": False}):
        assert await claim(**differing) == first
    after = await read(pool, email_id)
    assert set(changes(before, after)) == {"lease_expires_at", "updated_at"}
    assert after["lease_expires_at"] > before["lease_expires_at"]
    # Nobody else is taken for its claimer: an older version takes over and leaves the token alone.
    assert await claim(token=uuid4()) is Refusal.NO_WORK
    assert await claim(worker="another") is Refusal.NO_WORK
    assert isinstance(first, Claim)
    assert await one_email.complete(pool, first, extracted_data=None, cleaned_body=None)
    assert await claim() is Refusal.NO_WORK


async def test_a_claim_that_comes_again_while_the_first_has_not_committed_is_the_same(
    pool: Pool,
) -> None:
    email_id = await store(pool)
    again: Any = {"lease": LEASE, "worker": "a worker", "token": uuid4()}
    async with pool.acquire() as connection, connection.transaction():
        first = await one_email.claim(connection, email_id, **again)
        assert await one_email.claim(pool, email_id, **again) is Refusal.BUSY
    second = await one_email.claim(pool, email_id, **again)
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert second[0] == first[0]
    assert (await read(pool, email_id))["claims"] == 1


async def test_who_may_not_take_over_leaves_a_lease_that_ran_out(pool: Pool) -> None:
    email_id = await store(pool, "processing")
    before = await read(pool, email_id)
    for suspects in (True, False):
        refused = await one_email.claim(
            pool, email_id, lease=LEASE, worker="b", suspects=suspects, takes_over=False
        )
        assert refused is Refusal.NO_WORK
    assert await read(pool, email_id) == before


async def wait_for_lock(pool: Pool) -> None:
    """Wait until a statement on this database waits for a lock."""
    async with asyncio.timeout(60):
        while not await pool.fetchval(  # noqa: ASYNC110
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["claim", "take over", "extend", "postpone"])
async def test_leases_and_pauses_begin_after_the_wait_for_a_row(pool: Pool, what: str) -> None:
    state = {"claim": "queued", "postpone": "queued"}.get(what, "processing")
    email_id = await store(pool, state)
    long_pause = timedelta(hours=1)
    # Those of many emails pass over what is locked, and come again.
    passed_over = {"extend": {(email_id, TOKEN): False}, "postpone": None}.get(what, Refusal.BUSY)

    async def change() -> object:
        match what:
            case "claim" | "take over":
                return await one_email.claim(pool, email_id, lease=long_pause, worker="a worker")
            case "extend":
                return await keeping.extend_leases(pool, [standing(email_id)], lease=long_pause)
        return await claiming.postpone_suspect(pool, email_id, delay=long_pause)

    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", email_id)
        changing = asyncio.create_task(change())
        if passed_over is None:
            await wait_for_lock(pool)
        else:
            assert await changing == passed_over
        waited_until = await holder.fetchval("SELECT clock_timestamp()")
    changed = await (changing if passed_over is None else change())
    assert changed and changed != passed_over
    row = await read(pool, email_id)
    column = "next_attempt_at" if what == "postpone" else "lease_expires_at"
    assert row[column] >= waited_until + long_pause


async def test_one_locked_email_does_not_keep_the_other_leases_from_being_extended(
    pool: Pool,
) -> None:
    held = [await claimed(pool, await store(pool)) for _ in range(3)]
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute(
            "SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", held[1].email_id
        )
        async with asyncio.timeout(60):
            standing = await keeping.extend_leases(pool, held, lease=LEASE)
    assert [standing[claim.email_id, claim.started_at] for claim in held] == [True, False, True]


async def test_attempt_errors_keep_the_first_and_the_newest_and_count_the_others(
    pool: Pool,
) -> None:
    email_id = await store(pool, attempt_errors="[]")
    told = 3 * bounds.MOST_ENTRIES
    for number in range(told):
        held = await claimed(pool, email_id)
        if number % 2:
            assert await one_email.hand_back(pool, held, reason=f"entry {number}")
        else:
            await one_email.retry_later(pool, held, error=f"entry {number}", delay=timedelta(0))
        entries = json.loads((await read(pool, email_id))["attempt_errors"])
        if number < bounds.MOST_ENTRIES:
            assert [entry["error"] for entry in entries] == [
                f"entry {n}" for n in range(number + 1)
            ]
            continue
        assert len(entries) == bounds.MOST_ENTRIES
        first, newest = bounds.FIRST_ENTRIES, bounds.MOST_ENTRIES - 11
        left_out = number + 1 - first - newest
        assert [entry["error"] for entry in entries] == [
            *(f"entry {n}" for n in range(first)),
            f"left out here: {left_out} entries",
            *(f"entry {n}" for n in range(number + 1 - newest, number + 1)),
        ]
        assert entries == sorted(entries, key=lambda entry: entry["at"])


async def test_attempt_errors_that_grew_before_there_was_a_bound_are_cut(pool: Pool) -> None:
    entries = [
        {"at": f"2026-01-01T00:00:00.{n:06}+00:00", "attempt": 0, "error": f"entry {n}"}
        for n in range(1_000)
    ]
    email_id = await store(pool, "failed", attempt_errors=json.dumps(entries))
    assert await operators.retry(pool, email_id, by="erika")
    kept = json.loads((await read(pool, email_id))["attempt_errors"])
    assert len(kept) == bounds.MOST_ENTRIES
    assert kept[bounds.FIRST_ENTRIES]["error"] == "left out here: 952 entries"
    assert [kept[0]["error"], kept[-1]["error"]] == ["entry 0", "retried by erika"]


async def test_who_takes_over_tells_of_the_claim_that_it_ends(pool: Pool) -> None:
    email_id = await store(pool)
    lost = timedelta(seconds=-1)
    first = await one_email.claim(pool, email_id, lease=lost, worker="one")
    second = await one_email.claim(pool, email_id, lease=lost, worker="another")
    assert await one_email.claim(pool, email_id, lease=LEASE, worker="a third")
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    entries = json.loads((await read(pool, email_id))["attempt_errors"])
    assert [entry["worker"] for entry in entries] == ["one", "another"]
    for entry, made in zip(entries, (first, second), strict=True):
        assert datetime.fromisoformat(entry["started_at"]) == made[0].started_at
        assert (entry["attempt"], entry["error"]) == (1, "its worker vanished")


async def test_messages_that_are_lost_one_after_the_other_are_told_once(pool: Pool) -> None:
    email_id = await store(pool, "queued", attempt_errors="[]", next_attempt_at=None)

    async def lose_a_message() -> None:
        assert await queue(pool, limit=1, depth=1) in ([], [email_id])
        await pool.execute("UPDATE incoming_emails SET queued_at = $1", LONG_AGO)
        assert await keeping.rescue_unheard(pool, limit=1, lost_after=LOST_AFTER, is_idle=True) == [
            email_id
        ]

    for _ in range(3):
        await lose_a_message()
    (entry,) = json.loads((await read(pool, email_id))["attempt_errors"])
    assert (entry["attempt"], entry["error"]) == (0, "its message was lost")
    assert await one_email.hand_back(pool, await claimed(pool, email_id))
    await lose_a_message()
    entries = json.loads((await read(pool, email_id))["attempt_errors"])
    assert [entry["error"] for entry in entries] == [
        "its message was lost",
        "handed back untried: its worker stopped",
        "its message was lost",
    ]


async def test_a_message_that_comes_twice_does_not_shorten_the_pause_of_a_suspect(
    pool: Pool,
) -> None:
    later = await now(pool) + timedelta(hours=1)
    email_id = await store(pool, "queued", next_attempt_at=later)
    assert await claiming.postpone_suspect(pool, email_id, delay=timedelta(seconds=5))
    assert (await read(pool, email_id))["next_attempt_at"] == later


async def test_of_many_claimers_at_once_one_gets_the_email(pool: Pool) -> None:
    email_id = await store(pool)
    claims = await asyncio.gather(
        *(one_email.claim(pool, email_id, lease=LEASE, worker="a worker") for _ in range(20))
    )
    assert len([claim for claim in claims if isinstance(claim, tuple)]) == 1
    assert (await read(pool, email_id))["claims"] == 1


@pytest.mark.parametrize("way", ["complete", "fail", "retry_later", "hand_back", "extend"])
async def test_whoever_lost_its_claim_changes_nothing(pool: Pool, way: str) -> None:
    email_id = await store(pool)
    first = await claimed(pool, email_id, lease=timedelta(seconds=-1))
    second = await claimed(pool, email_id)
    before = await read(pool, email_id)

    async def end(claim: Claim) -> object:
        match way:
            case "complete":
                return await one_email.complete(
                    pool, claim, extracted_data='{"by": "it"}', cleaned_body="by it"
                )
            case "fail":
                return await one_email.fail(pool, claim, error="by it")
            case "retry_later":
                return await one_email.retry_later(pool, claim, error="by it", delay=timedelta(0))
            case "hand_back":
                return await one_email.hand_back(pool, claim)
            case _:
                return await keeping.extend_leases(pool, [claim], lease=timedelta(days=1))

    assert not await end(first)
    assert await read(pool, email_id) == before
    assert await end(second)
    after = await read(pool, email_id)
    assert after != before
    # Nor does anybody after the end, and the one who ended it cannot end it twice.
    if way != "extend":
        assert not await end(first)
        assert not await end(second)
        assert await read(pool, email_id) == after


@pytest.mark.parametrize("lost_comes", ["first", "last"])
@pytest.mark.parametrize("way", ["complete", "fail", "retry_later", "hand_back"])
async def test_of_two_results_of_an_email_at_once_that_counts_whose_claim_stands(
    pool: Pool, way: str, lost_comes: str
) -> None:
    email_id = await store(pool)
    claims = [await claimed(pool, email_id, lease=timedelta(seconds=-1))]
    claims.append(await claimed(pool, email_id))
    texts = {claims[0]: "lost", claims[1]: "stands"}
    if lost_comes == "last":
        claims.reverse()
    match way:
        case "complete":
            ends = await ending.complete(
                pool, [ending.Completion(one, None, texts[one]) for one in claims]
            )
        case "fail":
            ends = await ending.fail(pool, [ending.Failure(one, texts[one]) for one in claims])
        case "retry_later":
            ends = await ending.retry_later(
                pool, [ending.LaterRetry(one, texts[one], timedelta(0)) for one in claims]
            )
        case _:
            ends = await ending.hand_back(
                pool, [ending.HandBack(one, texts[one]) for one in claims]
            )
    expected = {"lost": ending.End.LOST, "stands": ending.End.RECORDED}
    assert ends == [expected[texts[one]] for one in claims]
    row = await read(pool, email_id)
    errors = json.loads(row["attempt_errors"])
    assert (row["cleaned_body"] if way == "complete" else errors[-1]["error"]) == "stands"


async def test_leases_are_extended_for_those_that_still_stand(pool: Pool) -> None:
    mine = [await claimed(pool, await store(pool)) for _ in range(3)]
    stolen = await claimed(pool, await store(pool), lease=timedelta(seconds=-1))
    thief = await claimed(pool, stolen.email_id)
    finished = await claimed(pool, await store(pool))
    await one_email.complete(pool, finished, extracted_data=None, cleaned_body=None)
    longer = timedelta(hours=1)
    start = await now(pool)
    still = await keeping.extend_leases(pool, [*mine, stolen, finished], lease=longer)
    assert still == {(claim.email_id, claim.started_at): True for claim in mine}
    for claim in mine:
        assert (await read(pool, claim.email_id))["lease_expires_at"] >= start + longer
    assert (await read(pool, thief.email_id))["lease_expires_at"] < start + longer
    assert (await read(pool, finished.email_id))["lease_expires_at"] is None


async def test_the_token_grows_even_if_the_clock_was_set_back(pool: Pool) -> None:
    ahead = await now(pool) + timedelta(days=1)
    email_id = await store(pool, "queued", started_at=ahead, next_attempt_at=None)
    last = ahead
    for _ in range(3):
        token = (await claimed(pool, email_id, lease=timedelta(seconds=-1))).started_at
        assert token > last
        last = token


async def test_the_token_grows_within_one_transaction(pool: Pool) -> None:
    # There, now() stands still.
    email_id = await store(pool)
    async with pool.acquire() as connection, connection.transaction():
        first = await one_email.claim(connection, email_id, lease=LEASE, worker="a worker")
        assert isinstance(first, tuple)
        assert await one_email.hand_back(connection, first[0])
        second = await one_email.claim(connection, email_id, lease=LEASE, worker="a worker")
        assert isinstance(second, tuple)
    assert second[0].started_at > first[0].started_at


async def test_emails_are_queued_in_the_order_of_their_receipt(pool: Pool) -> None:
    moments = [LONG_AGO + timedelta(minutes=minutes) for minutes in (5, 1, 4, 2, 3)]
    ids = {moment: await store(pool, received_at=moment) for moment in moments}
    in_order = [ids[moment] for moment in sorted(moments)]
    assert await queue(pool, limit=2, depth=100) == in_order[:2]
    assert await queue(pool, limit=10, depth=100) == in_order[2:]
    await pool.execute("UPDATE incoming_emails SET queued_at = NULL")
    assert await queue(pool, limit=3, depth=100) == in_order[:3]
    assert await queue(pool, limit=3, depth=100) == in_order[3:]


async def test_no_more_emails_wait_in_the_broker_than_its_depth(pool: Pool) -> None:
    for _ in range(10):
        await store(pool)
    queued = await queue(pool, limit=50, depth=4)
    assert len(queued) == 4
    assert await queue(pool, limit=50, depth=4) == []
    # Whoever is claimed makes room, also if it is then to wait for its next attempt.
    await claimed(pool, queued[0])
    other = await claimed(pool, queued[1])
    await one_email.retry_later(pool, other, error="x", delay=timedelta(hours=1))
    assert len(await queue(pool, limit=50, depth=4)) == 2
    # A depth that was made smaller is no error.
    assert await queue(pool, limit=50, depth=2) == []


@pytest.mark.parametrize(
    ("state", "columns", "take"),
    [
        ("received", {}, lambda one: queue(one, limit=2, depth=9)),
        ("queued", {"queued_at": None}, lambda one: queue(one, limit=2, depth=9)),
        ("processing", {}, lambda one: keeping.rescue_expired(one, limit=2)),
        (
            "queued",
            {},
            lambda one: keeping.rescue_unheard(one, limit=2, lost_after=LOST_AFTER, is_idle=True),
        ),
    ],
    ids=["queue", "queue again", "rescue_expired", "rescue_unheard"],
)
async def test_no_plan_makes_a_transition_take_more_than_its_limit(
    pool: Pool, state: str, columns: Row, take: Callable[[Any], Awaitable[list[UUID]]]
) -> None:
    stored = [
        await store(pool, state, received_at=LONG_AGO + timedelta(minutes=minute), **columns)
        for minute in range(5)
    ]
    async with pool.acquire() as connection:
        # What PostgreSQL comes to by itself where its statistics are old.
        for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
            await connection.execute(f"SET enable_{way} = off")
        assert set(await take(connection)) == set(stored[:2])


async def test_skip_locked_keeps_two_dispatchers_apart(pool: Pool) -> None:
    for _ in range(6):
        await store(pool)
    for _ in range(4):
        await store(pool, "queued", queued_at=None, next_attempt_at=None)
    async with (
        pool.acquire() as one,
        pool.acquire() as other,
        one.transaction(),
        other.transaction(),
    ):
        first = await queue(one, limit=7, depth=100)
        # It does not wait for the rows that the first has locked.
        async with asyncio.timeout(WAIT_SECONDS):
            second = await queue(other, limit=7, depth=100)
    assert (len(first), len(second)) == (7, 3)
    assert not set(first) & set(second)


async def test_many_dispatchers_send_each_email_once(pool: Pool) -> None:
    ids = {await store(pool) for _ in range(230)}
    sent: list[UUID] = []
    dispatchers = [Dispatcher(pool, send=sent.extend, depth=1_000, concurrency=1) for _ in range(4)]

    async def dispatch_all(dispatcher: Dispatcher) -> None:
        while await dispatcher.dispatch_batch():
            pass

    while len(sent) < len(ids):
        before = len(sent)
        await asyncio.gather(*(dispatch_all(dispatcher) for dispatcher in dispatchers))
        assert len(sent) > before
    assert len(sent) == len(ids)
    assert set(sent) == ids


async def test_only_what_lost_its_worker_is_rescued(pool: Pool) -> None:
    held = await store(pool, "processing", lease_expires_at=await now(pool) + LEASE)
    old = await store(pool, "processing", received_at=LONG_AGO - timedelta(days=1))
    new = await store(pool, "processing")
    assert await keeping.rescue_expired(pool, limit=1) == [old]
    assert await keeping.rescue_expired(pool, limit=10) == [new]
    assert await keeping.rescue_expired(pool, limit=10) == []
    assert (await read(pool, held))["processing_status"] == "processing"
    row = await read(pool, new)
    assert (row["queued_at"], row["lease_expires_at"]) == (None, None)
    # The lost claim counts.
    assert (await claimed(pool, new)).lost_claims == BASE["lost_claims"] + 1


async def test_only_what_was_queued_for_too_long_is_sent_again(pool: Pool) -> None:
    moment = await now(pool)
    lost = await store(pool, "queued", queued_at=moment - 2 * LOST_AFTER)
    await store(pool, "queued", queued_at=moment - LOST_AFTER / 2)
    await store(pool, "queued", queued_at=None)
    rescued = await keeping.rescue_unheard(pool, limit=10, lost_after=LOST_AFTER, is_idle=True)
    assert rescued == [lost]
    assert (await read(pool, lost))["queued_at"] is None
    assert await keeping.rescue_unheard(pool, limit=10, lost_after=LOST_AFTER, is_idle=True) == []


async def test_a_row_in_another_transactions_hands_is_not_waited_for(pool: Pool) -> None:
    expired = [await store(pool, "processing") for _ in range(2)]
    unheard = [await store(pool, "queued") for _ in range(2)]
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute(
            "SELECT FROM incoming_emails WHERE id = ANY($1) FOR UPDATE", [expired[0], unheard[0]]
        )
        async with asyncio.timeout(WAIT_SECONDS):
            assert await keeping.rescue_expired(pool, limit=10) == [expired[1]]
            assert await keeping.rescue_unheard(
                pool, limit=10, lost_after=LOST_AFTER, is_idle=True
            ) == [unheard[1]]


async def test_claims_that_ended_without_a_result_are_counted_and_others_not(pool: Pool) -> None:
    email_id = await store(pool)
    lost = timedelta(seconds=-1)
    await claimed(pool, email_id, lease=lost)
    taken = await claimed(pool, email_id)
    assert taken.lost_claims == 1
    # Handed back: as if it had never been claimed.
    assert await one_email.hand_back(pool, taken)
    again = await claimed(pool, email_id)
    assert again.lost_claims == 1
    # An attempt that failed is no lost claim.
    assert await one_email.retry_later(pool, again, error="x", delay=timedelta(0))
    assert (await claimed(pool, email_id, lease=lost)).lost_claims == 1
    # Neither is one whose worker vanished the second.
    assert await keeping.rescue_expired(pool, limit=1) == [email_id]
    assert (await claimed(pool, email_id, lease=lost)).lost_claims == 2


async def test_only_an_email_whose_worker_vanished_is_a_suspect(pool: Pool) -> None:
    email_id = await store(pool)
    delay = timedelta(seconds=5)

    async def is_suspect() -> bool:
        """Whether it is refused to who takes no suspects, and can be postponed."""
        before = await read(pool, email_id)
        if not await claiming.postpone_suspect(pool, email_id, delay=delay):
            assert await read(pool, email_id) == before
            return False
        after = await read(pool, email_id)
        assert after["queued_at"] is None
        assert after["next_attempt_at"] >= before["updated_at"] + delay
        await pool.execute("UPDATE incoming_emails SET next_attempt_at = NULL")
        taken = await one_email.claim(
            pool, email_id, lease=LEASE, suspects=False, worker="a worker"
        )
        assert taken is Refusal.SUSPECT
        return True

    assert not await is_suspect()
    held = await one_email.claim(pool, email_id, lease=LEASE, suspects=False, worker="a worker")
    assert isinstance(held, tuple)
    assert not await is_suspect()
    # Neither an attempt that failed nor one handed back makes it one; a lease that ran out does.
    assert await one_email.retry_later(pool, held[0], error="x", delay=timedelta(0))
    assert not await is_suspect()
    held = await one_email.claim(pool, email_id, lease=LEASE, suspects=False, worker="a worker")
    assert isinstance(held, tuple)
    assert await one_email.hand_back(pool, held[0])
    assert not await is_suspect()
    lost = timedelta(seconds=-1)
    held = await one_email.claim(pool, email_id, lease=lost, suspects=False, worker="a worker")
    assert isinstance(held, tuple)
    assert await keeping.rescue_expired(pool, limit=1) == [email_id]
    assert await is_suspect()
    last = await claimed(pool, email_id)
    assert last.lost_claims == 1
    assert not await is_suspect()
    assert await one_email.fail(pool, last, error="x")
    assert not await is_suspect()
    assert await operators.retry(pool, email_id, by="erika")
    assert not await is_suspect()


async def test_an_operator_retries_what_failed_and_only_by_force_what_completed(
    pool: Pool,
) -> None:
    completed = await store(pool, "completed")
    assert not await operators.retry(pool, completed, by="erika")
    assert await operators.retry(pool, completed, by="erika", force=True)
    row = await read(pool, completed)
    assert row["processing_status"] == "queued"
    # What the last run found stays until the next one ends.
    assert json.loads(row["extracted_data"]) == {"a": 1}
    assert row["cleaned_body"] == "Hallo"
    # A second click finds nothing to retry.
    assert not await operators.retry(pool, completed, by="erika", force=True)
    assert len(json.loads((await read(pool, completed))["attempt_errors"])) == 2


async def test_an_erased_email_is_not_retried_even_by_force(pool: Pool) -> None:
    erased = await store(pool, "failed")
    async with pool.acquire() as connection, connection.transaction():
        gone = await erasing.empty(connection, [erased], told="erased by erika", whole=False)
    assert gone.emails == 1
    before = await read(pool, erased)
    assert not await operators.retry(pool, erased, by="erika", force=True)
    assert await read(pool, erased) == before


async def test_only_failures_with_the_text_and_in_the_time_are_retried_together(pool: Pool) -> None:
    day = timedelta(days=1)
    late = LONG_AGO + 2 * day
    wanted = {await store(pool, "failed", completed_at=LONG_AGO + n * day) for n in (0, 1)}
    await store(pool, "failed", completed_at=LONG_AGO - day)
    await store(pool, "failed", completed_at=late)
    await store(pool, "failed", processing_error="100% other")
    search = Search(error="IT broke", completed_from=LONG_AGO, completed_until=late)
    failed = (ProcessingStatus.FAILED,)
    assert await count_matching(pool, attrs.evolve(search, status=failed)) == 2
    assert await count_matching(pool, Search(status=failed)) == 5
    assert await count_matching(pool, Search(status=failed, error="%")) == 1
    assert await retry_failed(pool, search, by="erika") == 2
    assert await retry_failed(pool, search, by="erika") == 0
    queued = await pool.fetch("SELECT * FROM incoming_emails WHERE processing_status = 'queued'")
    assert {row["id"] for row in queued} == wanted
    for row in queued:
        assert json.loads(row["attempt_errors"])[-1]["error"] == "retried by erika"


async def test_an_operator_settles_what_failed_and_says_why(pool: Pool) -> None:
    kept = await store(pool, "failed", extracted_data='{"a": 1}')
    assert await operators.settle(pool, kept, by="erika", reason="by phone")
    row = await read(pool, kept)
    assert json.loads(row["attempt_errors"])[-1]["error"] == "completed by erika: by phone"
    assert json.loads(row["extracted_data"]) == {"a": 1}
    assert row["processed_at"] == LONG_AGO
    discarded = await store(pool, "failed", extracted_data='{"a": 1}')
    assert await operators.settle(pool, discarded, by="erika", reason="spam", discard=True)
    row = await read(pool, discarded)
    assert json.loads(row["attempt_errors"])[-1]["error"] == "discarded by erika: spam"
    assert row["extracted_data"] is None
    assert not await operators.settle(pool, discarded, by="erika", reason="again")


@pytest.fixture
async def large(pool: Pool) -> Pool:
    """20,000 emails, most of them completed."""
    await pool.execute(
        """
        INSERT INTO incoming_emails (
            from_email, subject, processing_status, received_at, queued_at, started_at,
            lease_expires_at, next_attempt_at
        )
        SELECT 'erika@example.com', 'Hallo', status, now() - n * interval '1 minute',
            CASE WHEN status <> 'received' AND n % 7 <> 0 THEN now() - interval '1 hour' END,
            CASE WHEN status NOT IN ('received', 'queued') THEN now() END,
            CASE WHEN status = 'processing' THEN now() - interval '1 minute' END,
            CASE WHEN status = 'queued' AND n % 3 = 0 THEN now() END
        FROM (
            SELECT n, CASE
                WHEN n % 400 = 0 THEN 'processing'
                WHEN n % 100 = 1 THEN 'received'
                WHEN n % 100 = 2 THEN 'queued'
                WHEN n % 50 = 3 THEN 'failed'
                ELSE 'completed'
            END AS status
            FROM generate_series(1, 20000) AS n
        ) AS numbered
        """
    )
    await pool.execute("ANALYZE incoming_emails")
    return pool


STATUS_INDEX = "ix_incoming_emails_status_received"
SENT_INDEX = "ix_incoming_emails_with_message"
DUE_INDEX = "ix_incoming_emails_without_message"
PLANS: list[tuple[str, list[object], str]] = [
    (dispatching.QUEUE, [50, 1_000, 1, None, None, LEASE, 100], STATUS_INDEX),
    (dispatching.QUEUE, [50, 1_000, 1, None, None, LEASE, 100], SENT_INDEX),
    (dispatching.QUEUE, [50, 1_000, 1, None, None, LEASE, 100], DUE_INDEX),
    (dispatching.UNQUEUE, [["id"], [TOKEN], [True]], "incoming_emails_pkey"),
    (dispatching.END_WAIT, [["id"]], "incoming_emails_pkey"),
    (dispatching.END_WAITS, [100], DUE_INDEX),
    (keeping.RESCUE_EXPIRED, [500, None], STATUS_INDEX),
    (keeping.RESCUE_UNHEARD, [500, None, LOST_AFTER, None, False], SENT_INDEX),
    (
        claiming.CLAIM,
        [["id"], [uuid4()], LEASE, "a worker", False, True, 1_000, True],
        "incoming_emails_pkey",
    ),
    (claiming.GIVE_BACK, [["id"]], "incoming_emails_pkey"),
    (claiming.POSTPONE_SUSPECT, ["id", LEASE], "incoming_emails_pkey"),
    (ending.COMPLETE, [["id"], [TOKEN], ["{}"], ["text"], True], "incoming_emails_pkey"),
    (ending.RETRY_LATER, [["id"], [TOKEN], ["x"], [LEASE]], "incoming_emails_pkey"),
    (ending.FAIL, [["id"], [TOKEN], ["x"], True], "incoming_emails_pkey"),
    (ending.HAND_BACK, [["id"], [TOKEN], ["x"]], "incoming_emails_pkey"),
    (keeping.EXTEND_LEASES, [["id"], [TOKEN], LEASE], "incoming_emails_pkey"),
    (operators.RETRY_BY_OPERATOR, [["id"], ["failed"], "erika"], "incoming_emails_pkey"),
    (operators.SETTLE, ["id", "erika", "by phone", False, True], "incoming_emails_pkey"),
]


async def test_no_transition_reads_the_whole_table(large: Pool) -> None:
    some_id = await large.fetchval("SELECT id FROM incoming_emails LIMIT 1")
    for statement, arguments, index in PLANS:
        given = [
            some_id if value == "id" else [some_id] if value == ["id"] else value
            for value in arguments
        ]
        async with large.acquire() as connection:
            for plan_kind in ("force_custom_plan", "force_generic_plan"):
                await connection.execute(f"SET plan_cache_mode = {plan_kind}")
                lines = await connection.fetch(f"EXPLAIN {statement}", *given)
                plan = "\n".join(line[0] for line in lines)
                assert index in plan, f"{plan_kind}:{statement}\n{plan}"
                assert "Seq Scan on incoming_emails" not in plan, f"{plan_kind}:{statement}\n{plan}"


async def test_what_is_stuck_is_found_without_reading_the_whole_table(large: Pool) -> None:
    async with large.acquire() as connection:
        for plan_kind in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {plan_kind}")
            lines = await connection.fetch(f"EXPLAIN {SELECT_STUCK}", LEASE, 1_000, LEASE)
            plan = "\n".join(line[0] for line in lines)
            assert STATUS_INDEX in plan, plan
            assert "Seq Scan on incoming_emails" not in plan, plan


async def test_an_email_in_processing_without_a_lease_is_rescued(pool: Pool) -> None:
    """A row of a time before there were leases."""
    email_id = await pool.fetchval(
        "INSERT INTO incoming_emails (processing_status) VALUES ('processing') RETURNING id"
    )
    assert await keeping.rescue_expired(pool, limit=10) == [email_id]
    assert await queue(pool, limit=10, depth=10) == [email_id]
    await claimed(pool, email_id)


async def test_a_long_queue_is_not_taken_for_lost_messages(pool: Pool) -> None:
    """Where every worker is busy, only what was overtaken by later emails can be lost."""
    insert = (
        "INSERT INTO incoming_emails (processing_status, queued_at, lease_expires_at)"
        " VALUES ($1, now() - $2::interval, now() + interval '1 minute') RETURNING id"
    )
    overtaken = await pool.fetchval(insert, "queued", 3 * LOST_AFTER)
    await pool.fetchval(insert, "processing", 2 * LOST_AFTER)
    waiting = await pool.fetchval(insert, "queued", 1.5 * LOST_AFTER)
    busy = {"limit": 10, "lost_after": LOST_AFTER, "is_idle": False}
    assert await keeping.rescue_unheard(pool, **busy) == [overtaken]
    assert await keeping.rescue_unheard(pool, **busy | {"is_idle": True}) == [waiting]
