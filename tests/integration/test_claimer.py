"""Messages of many emails: claimed together, each with its own way to its end."""

import asyncio
import json
import math
from collections import Counter
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import one_email
import pytest
from support import WAIT_SECONDS, make_settings

from app.handlers.loading import as_handler
from app.jobs import claimer as claimer_module
from app.jobs import process as process_module
from app.jobs.claimer import Claimer
from app.jobs.leases import Contact, HeldClaims
from app.jobs.transitions import claiming
from app.jobs.transitions.claiming import Claimed, Refusal
from app.models.incoming_email import IncomingEmail

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(seconds=60)


async def store(pool: Pool, number: int, **columns: Any) -> list[UUID]:
    """Store emails. Returns their ids."""
    values = {"from_email": "erika@example.com", **columns}
    places = ", ".join(f"${n}" for n in range(2, len(values) + 2))
    rows = await pool.fetch(
        f"INSERT INTO incoming_emails ({', '.join(values)})"
        f" SELECT {places} FROM generate_series(1, $1) RETURNING id",
        number,
        *values.values(),
    )
    return [row["id"] for row in rows]


async def queue(pool: Pool) -> None:
    """Have all that wait be as a Dispatcher leaves them."""
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'queued', queued_at = now()"
        " WHERE processing_status = 'received'"
    )


async def states(pool: Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT processing_status FROM incoming_emails")
    return dict(Counter(row["processing_status"] for row in rows))


async def wait_for(pool: Pool, **expected: int) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while await states(pool) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Handler:
    """A handler that can be held up, and counts."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.runs: list[UUID] = []
        self.running = 0
        self.most_running = 0

    async def handle(self, email: IncomingEmail) -> None:
        self.runs.append(email.id)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1


def make_claimer(pool: Any, handler: Any, **values: Any) -> Claimer:
    held_claims = HeldClaims()
    held_claims.contact = Contact(since=-1e9, last=1e18)
    handler = as_handler(handler, threads=4)
    return Claimer(make_settings(**values), handler, pool, held_claims, one_email.late_columns())


def quick(claimer: Claimer) -> None:
    """Have a claimer believe that handlers ended very quickly until now."""
    ends = claimer._places._ends
    ends.extend([1e18] * (ends.maxlen or 0))


async def test_each_email_of_a_message_is_claimed_or_left_for_its_own_reason(pool: Pool) -> None:
    handler = Handler()
    good, twice, suspect, locked, finished, held, later, erased, gone = ids = await store(pool, 9)
    await pool.execute(
        "UPDATE incoming_emails SET lost_claims = 1, claims = 1 WHERE id = $1", suspect
    )
    for email_id, sets in (
        (finished, "processing_status = 'completed'"),
        (held, "processing_status = 'processing', lease_expires_at = now() + interval '1 hour'"),
        (later, "processing_status = 'queued', next_attempt_at = now() + interval '1 hour'"),
        (erased, "processing_status = 'completed', erased_at = now()"),
    ):
        await pool.execute(f"UPDATE incoming_emails SET {sets} WHERE id = $1", email_id)
    await pool.execute("DELETE FROM incoming_emails WHERE id = $1", gone)
    untouched = "SELECT * FROM incoming_emails WHERE id = ANY($1) ORDER BY id"
    before = await pool.fetch(untouched, [finished, held, later, erased])
    claimer = make_claimer(pool, handler.handle)
    async with asyncio.timeout(WAIT_SECONDS):
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", locked)
            # The message ends though one of its emails is locked.
            await claimer.take([*ids, twice])
            await wait_for(pool, completed=5, processing=1, queued=1, received=1)
        await wait_for(pool, completed=6, processing=1, queued=1)
    assert await pool.fetch(untouched, [finished, held, later, erased]) == before
    assert sorted(handler.runs) == sorted([good, twice, suspect, locked])
    claims = await pool.fetch("SELECT id, claims, claim_token FROM incoming_emails")
    assert {row["claims"] for row in claims if row["id"] in (good, twice, locked)} == {1}
    tokens = {row["claim_token"] for row in claims if row["id"] in handler.runs}
    assert len(tokens) == 4


async def test_suspects_of_a_message_are_handled_one_at_a_time_beside_the_others(
    pool: Pool,
) -> None:
    handler = Handler()
    handler.may_end.clear()
    suspects, others = await store(pool, 3, lost_claims=1, claims=1), await store(pool, 3)
    claimer = make_claimer(pool, handler.handle)
    async with asyncio.timeout(WAIT_SECONDS):
        await claimer.take([*suspects, *others])
        while handler.running < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await states(pool) == {"processing": 4, "received": 2}
        handler.may_end.set()
        # The next one need not wait for another message.
        await wait_for(pool, completed=6)
    assert set(handler.runs) == {*suspects, *others}


async def test_a_hanging_handler_of_a_message_delays_no_other(pool: Pool) -> None:
    hanging, *others = await store(pool, 30)
    cancelled: list[UUID] = []

    async def handle(email: IncomingEmail) -> None:
        if email.id == hanging:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(email.id)
                raise

    claimer = make_claimer(pool, handle, handler_timeout_seconds=3, max_retries=0)
    async with asyncio.timeout(WAIT_SECONDS):
        await claimer.take([hanging, *others])
        await wait_for(pool, completed=29, processing=1)
        assert cancelled == []
        await wait_for(pool, completed=29, failed=1)
    assert cancelled == [hanging]
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", hanging)
    assert row is not None
    assert row["processing_error"] == "the handler did not finish within 3 seconds"


async def test_no_more_handlers_run_at_once_than_there_are_places(pool: Pool) -> None:
    ids = await store(pool, 60)
    handler = Handler()

    async def handle(email: IncomingEmail) -> None:
        await handler.handle(email)
        handler.running += 1
        await asyncio.sleep(0.01)
        handler.running -= 1

    claimer = make_claimer(pool, handle, worker_concurrency=7)
    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.gather(*(claimer.take(ids[n : n + 20]) for n in (0, 20, 40)))
        await wait_for(pool, completed=60)
    assert handler.most_running <= 7
    assert sorted(handler.runs) == sorted(ids)


async def test_what_finds_no_place_in_time_is_for_other_workers(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer_module, "PLACE_SECONDS", 0.2)
    ids = await store(pool, 8)
    await queue(pool)
    handler = Handler()
    handler.may_end.clear()
    claimer = make_claimer(pool, handler.handle, worker_concurrency=3)
    async with asyncio.timeout(WAIT_SECONDS):
        taking = asyncio.create_task(claimer.take(ids))
        sent_again = "SELECT count(*) FROM incoming_emails WHERE queued_at IS NULL"
        while await pool.fetchval(sent_again) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert await states(pool) == {"processing": 3, "queued": 5}
        # It takes no other message while it is full.
        assert not taking.done()
        other = make_claimer(pool, Handler().handle)
        await other.take(ids)
        await wait_for(pool, processing=3, completed=5)
        assert not taking.done()
        handler.may_end.set()
        await taking
        await wait_for(pool, completed=8)
    assert len(handler.runs) == 3


async def test_more_is_claimed_where_handlers_are_quick_and_let_go_where_they_are_not_any_longer(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "LINE_SECONDS", 0.2)
    ids = await store(pool, 8)
    await queue(pool)
    handler = Handler()
    handler.may_end.clear()
    claimer = make_claimer(pool, handler.handle, worker_concurrency=3)
    quick(claimer)
    async with asyncio.timeout(WAIT_SECONDS):
        await claimer.take(ids)
        # No more of them run than there are places, and what waits is nobody else's so far.
        assert [one.gives_up_at < math.inf for one in claimer._held_claims.all()].count(True) == 3
        await wait_for(pool, processing=3, queued=5)
        assert handler.most_running == 3
        waiting = await pool.fetch(
            "SELECT id, claims, queued_at, attempt_errors -> -1 ->> 'error' AS told"
            " FROM incoming_emails WHERE processing_status = 'queued'"
        )
        assert {row["id"] for row in waiting} == {*ids} - {*handler.runs}
        # As if they had not been claimed: a Dispatcher sends them again.
        assert {(row["claims"], row["queued_at"], row["told"]) for row in waiting} == {
            (0, None, "handed back untried: its worker had no place for it")
        }
        other = Handler()
        await make_claimer(pool, other.handle).take([row["id"] for row in waiting])
        await wait_for(pool, processing=3, completed=5)
        handler.may_end.set()
        await wait_for(pool, completed=8)
    assert sorted([*handler.runs, *other.runs]) == sorted(ids)


async def test_what_waits_for_its_place_begins_in_order_when_one_is_free(pool: Pool) -> None:
    ids = await store(pool, 9)
    may_end = {email_id: asyncio.Event() for email_id in ids}
    runs: list[UUID] = []

    async def handle(email: IncomingEmail) -> None:
        runs.append(email.id)
        await may_end[email.id].wait()

    claimer = make_claimer(pool, handle, worker_concurrency=2)
    quick(claimer)
    async with asyncio.timeout(WAIT_SECONDS):
        await claimer.take(ids)
        lost = claimer._held_claims.all()
        given_up = next(one for one in lost if one.claim.email_id == ids[4])
        claimer._held_claims.give_up(given_up)
        for number, email_id in enumerate(ids):
            while number != 4 and email_id not in runs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert len(runs) <= number + 2
            may_end[email_id].set()
        await wait_for(pool, completed=8, queued=1)
    assert runs == [email_id for email_id in ids if email_id != ids[4]]
    assert claimer._places._running == claimer._places._taken == 0


async def test_what_is_given_up_as_a_place_becomes_free_ends_once(pool: Pool) -> None:
    ids = await store(pool, 2)

    async def handle(_: IncomingEmail) -> None:
        # Its place is cancelled, and then this one's is free, before the loop tells of either.
        (waiting,) = (one for one in held_claims.all() if one.claim.email_id == ids[1])
        held_claims.give_up(waiting)

    claimer = make_claimer(pool, handle, worker_concurrency=1)
    held_claims = claimer._held_claims
    quick(claimer)
    async with asyncio.timeout(WAIT_SECONDS):
        await claimer.take(ids)
        await wait_for(pool, completed=1, queued=1)
        await claimer.finish(WAIT_SECONDS)
    places = claimer._places
    assert (places._running, places._taken, places._unrecorded, places._bytes) == (0, 0, 0, 0)


async def test_bodies_in_hand_are_bounded_and_the_largest_is_taken_all_the_same(pool: Pool) -> None:
    size = 100_000
    ids = await store(pool, 30, raw_body_text="x" * size)
    (largest,) = await store(pool, 1, raw_body_html="y" * 50 * size)
    in_hand: set[UUID] = set()
    most = 0

    async def handle(email: IncomingEmail) -> None:
        nonlocal most
        in_hand.add(email.id)
        most = max(most, len(in_hand - {largest}))
        await asyncio.sleep(0.01)
        in_hand.remove(email.id)

    claimer = make_claimer(pool, handle)
    claimer._places._most_bytes = 4 * size
    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.gather(claimer.take(ids[:15]), claimer.take([*ids[15:], largest]))
        await wait_for(pool, completed=31)
    # Each of two that claim at once may take one email beyond it.
    assert 1 < most <= 4 + 2


async def test_one_claim_takes_no_more_bytes_than_it_may(pool: Pool) -> None:
    ids = await store(pool, 6, raw_body_text="x" * 1_000)
    wanted = {email_id: uuid4() for email_id in ids}
    options: Any = {"lease": LEASE, "worker": "w", "most_bytes": 2_500}
    made = await claiming.claim(pool, wanted, **options)
    assert [type(one) for one in made[:2]] == [Claimed, Claimed]
    assert made[2:] == [Refusal.NO_ROOM] * 4
    assert [one.body_bytes for one in made[:2] if isinstance(one, Claimed)] == [1_000, 1_000]
    made = await claiming.claim(pool, dict([*wanted.items()][2:]), **options | {"most_bytes": 1})
    assert isinstance(made[0], Claimed)
    assert made[1:] == [Refusal.NO_ROOM] * 3


async def test_two_processes_that_get_the_same_ids_share_them(pool: Pool) -> None:
    ids = await store(pool, 50)
    handlers = [Handler(), Handler()]
    claimers = [make_claimer(pool, handler.handle) for handler in handlers]
    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.gather(claimers[0].take(ids), claimers[1].take([*reversed(ids)]))
        await wait_for(pool, completed=50)
    assert sorted([*handlers[0].runs, *handlers[1].runs]) == sorted(ids)
    assert await pool.fetchval("SELECT max(claims) FROM incoming_emails") == 1


async def test_a_stop_waits_for_what_is_in_hand_and_takes_nothing_more(pool: Pool) -> None:
    ids, more = await store(pool, 40), await store(pool, 5)
    await queue(pool)
    handler = Handler()
    handler.may_end.clear()
    claimer = make_claimer(pool, handler.handle, worker_concurrency=40)
    async with asyncio.timeout(WAIT_SECONDS):
        await claimer.take(ids)
        claimer.close()
        await claimer.take(more)
        await claimer.finish(0.05)
        assert await states(pool) == {"processing": 40, "queued": 5}
        finishing = asyncio.create_task(claimer.finish(WAIT_SECONDS))
        handler.may_end.set()
        await finishing
    # What it ended is durable by then, and what it did not take is for others.
    assert await states(pool) == {"completed": 40, "queued": 5}
    given_back = await pool.fetch("SELECT id FROM incoming_emails WHERE queued_at IS NULL")
    assert {row["id"] for row in given_back} == set(more)
    assert claimer._held_claims.all() == []


async def test_a_claim_whose_handler_has_not_begun_is_held_and_can_be_given_up(pool: Pool) -> None:
    ids = await store(pool, 3)
    handler = Handler()
    claimer = make_claimer(pool, handler.handle)
    made = await claiming.claim(
        pool, {email_id: uuid4() for email_id in ids}, lease=LEASE, worker="w", most_bytes=9
    )
    share = await claimer._places.take(3, until=1e18)
    assert share is not None
    claimer._places.settle(share, [0] * 3)
    now = asyncio.get_running_loop().time()
    claimer._processor.begin([one for one in made if isinstance(one, Claimed)], now)
    held = claimer._held_claims.all()
    assert {one.claim.email_id for one in held} == set(ids)
    for one in held:
        claimer._held_claims.give_up(one)
    await claimer._processor.wait_for_all()
    assert handler.runs == []
    assert await states(pool) == {"queued": 3}
    errors = await pool.fetch("SELECT attempt_errors FROM incoming_emails")
    assert {json.loads(row[0])[0]["error"] for row in errors} == {
        "handed back untried: its worker stopped"
    }
