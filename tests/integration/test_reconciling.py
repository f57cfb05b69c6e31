"""What differs between the end of a job and its delivery is found and mended, whatever goes on."""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from support import make_settings

from app.jobs.story import tell_story
from app.models.incoming_email import ProcessingStatus
from app.sync import differences, reconciling
from app.sync.differences import Difference, Looked, Which
from app.sync.reconciling import Reconciliation, reconcile

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
ENDED = {"processing_status": "completed", "completed_at": NOW - 3 * HOUR}
SYNCED = {**ENDED, "sync_status": "synced", "sync_version": 1, "synced_at": NOW - 2 * HOUR}
ALL = set(Difference) - {Difference.CHOSEN, Difference.LACKING, Difference.UNTOLD}
OVERDUE_AFTER = HOUR

OF_EACH: dict[Difference | None, list[dict[str, Any]]] = {
    Difference.NEVER_ASKED: [ENDED, {**ENDED, "sync_version": 4}],
    Difference.OVERDUE: [
        {**ENDED, "sync_status": "pending", "sync_next_attempt_at": NOW + HOUR},
    ],
    Difference.CHANGED: [{**SYNCED, "completed_at": NOW - HOUR}],
    Difference.FAILED: [
        {**ENDED, "sync_status": "failed", "sync_retry_count": 9, "sync_error": "away"}
    ],
    None: [
        SYNCED,
        # Pending for a moment; delivered right now; erased; not ended; of an end that nobody wants.
        {**ENDED, "sync_status": "pending", "completed_at": NOW, "sync_next_attempt_at": NOW},
        {**ENDED, "sync_status": "pending", "sync_lease_expires_at": NOW + HOUR},
        {**ENDED, "erased_at": NOW},
        {"processing_status": "queued", "sync_status": "failed"},
        {**ENDED, "processing_status": "failed"},
    ],
}


async def store(pool: Pool, **columns: Any) -> UUID:
    numbers = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(columns)}) VALUES ({numbers}) RETURNING id",
        *columns.values(),
    )
    return email_id


async def store_all(pool: Pool) -> dict[Difference | None, set[UUID]]:
    return {
        difference: {await store(pool, **columns) for columns in emails}
        for difference, emails in OF_EACH.items()
    }


async def row_of(pool: Pool, email_id: UUID) -> dict[str, Any]:
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    return dict(row)


async def run(
    pool: Pool,
    wanted: Collection[Difference] = frozenset(ALL),
    *,
    applies: bool = False,
    states: Sequence[ProcessingStatus] = (ProcessingStatus.COMPLETED,),
    asks: reconciling.Asks | None = None,
    **which: Any,
) -> tuple[Counter[Difference], int]:
    found: Counter[Difference] = Counter()
    delivered = 0
    meant = Reconciliation(
        which=Which(overdue_after=OVERDUE_AFTER, **which),
        differences=wanted,
        states=states,
        applies=applies,
        by="erika",
    )
    async for step in reconcile(pool, meant, asks=asks):
        found += step.found
        delivered += step.delivered
    return found, delivered


async def test_each_difference_is_found_and_nothing_else_and_a_dry_run_changes_nothing(
    pool: Pool,
) -> None:
    await store_all(pool)
    before = await pool.fetch("SELECT * FROM incoming_emails ORDER BY id")
    found, delivered = await run(pool)
    assert found == {
        difference: len(emails) for difference, emails in OF_EACH.items() if difference
    }
    assert delivered == 0
    assert await pool.fetch("SELECT * FROM incoming_emails ORDER BY id") == before
    assert await pool.fetchval("SELECT count(*) FROM email_events") == 0


async def test_what_differs_is_due_at_once_and_a_second_run_finds_nothing_to_do(
    pool: Pool,
) -> None:
    ids = await store_all(pool)
    untouched = [await row_of(pool, email_id) for email_id in ids[None]]
    _, delivered = await run(pool, applies=True)
    mended = {email_id for difference, some in ids.items() if difference for email_id in some}
    assert delivered == len(mended)
    for email_id in mended:
        row = await row_of(pool, email_id)
        assert row["sync_status"] == "pending"
        assert row["sync_next_attempt_at"] <= await pool.fetchval("SELECT now()")
        assert row["sync_retry_count"] == 0
    assert [await row_of(pool, email_id) for email_id in ids[None]] == untouched
    found, delivered = await run(pool, applies=True)
    assert (found, delivered) == ({}, 0)
    assert await pool.fetchval("SELECT count(*) FROM email_events") == len(mended)


async def test_what_no_worker_comes_for_is_found_and_cannot_be_mended_here(pool: Pool) -> None:
    due = {"sync_status": "pending", "sync_next_attempt_at": NOW - 2 * HOUR}
    email_id = await store(pool, **ENDED, **due)
    before = await row_of(pool, email_id)
    assert await run(pool, applies=True) == ({Difference.OVERDUE: 1}, 0)
    assert await row_of(pool, email_id) == before


async def test_a_result_that_the_receiver_may_have_otherwise_gets_a_number_of_its_own(
    pool: Pool,
) -> None:
    ids = await store_all(pool)
    chosen = ids[None]
    await run(pool, {*ALL, Difference.CHOSEN}, applies=True)

    async def versions(some: set[UUID]) -> list[int]:
        return sorted([(await row_of(pool, email_id))["sync_version"] for email_id in some])

    assert await versions(ids[Difference.CHANGED]) == [2]
    assert await versions(ids[Difference.NEVER_ASKED]) == [1, 4]
    synced = [email_id for email_id in chosen if (await row_of(pool, email_id))["synced_at"]]
    assert await versions(set(synced)) == [1]


async def test_each_is_one_entry_of_its_story_with_who_wanted_it(pool: Pool) -> None:
    (email_id,) = (await store_all(pool))[Difference.FAILED]
    await run(pool, applies=True)
    story = await tell_story(pool, email_id, make_settings())
    assert story is not None
    said = "to be delivered again: its delivery had been given up (by erika)"
    assert [event.what for event in story.events].count(said) == 1
    assert story.next_step.startswith("it is delivered later")


@pytest.mark.parametrize(
    ("which", "found"),
    [
        ({"ticket_id": "1"}, 1),
        ({"from_email": "MAX@example.com"}, 1),
        ({"since": NOW - 2 * HOUR}, 1),
        ({"since": NOW - 3 * HOUR, "until": NOW - 2 * HOUR}, 2),
        ({"until": NOW - 3 * HOUR}, 0),
        ({"ticket_id": "1", "from_email": "max@example.com"}, 0),
        ({}, 3),
    ],
)
async def test_what_is_chosen_is_delivered_again_though_nothing_differs(
    pool: Pool, which: dict[str, Any], found: int
) -> None:
    await store(pool, **SYNCED, zendesk_ticket_id="1")
    await store(pool, **SYNCED, zendesk_ticket_id="2", from_email="max@example.com")
    await store(pool, **{**SYNCED, "completed_at": NOW - 2 * HOUR}, zendesk_ticket_id="3")
    assert (await run(pool, {Difference.CHOSEN}, applies=True, **which))[1] == found


async def test_by_its_id_a_single_one(pool: Pool) -> None:
    wanted, other = await store(pool, **SYNCED), await store(pool, **SYNCED)
    assert (await run(pool, {Difference.CHOSEN}, applies=True, ids=[wanted]))[1] == 1
    assert (await row_of(pool, other))["sync_status"] == "synced"


async def test_what_the_receiver_has_not_is_delivered_again(pool: Pool) -> None:
    has, lacks = await store(pool, **SYNCED), await store(pool, **SYNCED)
    await store_all(pool)
    asked: list[UUID] = []

    async def asks(some: Sequence[Looked]) -> set[UUID]:
        asked.extend(looked.id for looked in some)
        return {looked.id for looked in some} - {lacks}

    found, delivered = await run(pool, {Difference.LACKING}, applies=True, asks=asks)
    assert (found, delivered) == ({Difference.LACKING: 1}, 1)
    assert has in asked and len(asked) == 3
    assert (await row_of(pool, lacks))["sync_status"] == "pending"
    assert (await row_of(pool, has))["sync_status"] == "synced"


async def test_each_stretch_asks_the_receiver_once_at_most(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "ASKED_AT_ONCE", 2)
    ids = [await store(pool, **SYNCED) for _ in range(5)]
    asked: list[list[UUID]] = []

    async def asks(some: Sequence[Looked]) -> set[UUID]:
        asked.append([looked.id for looked in some])
        return set()

    meant = Reconciliation(
        which=Which(overdue_after=OVERDUE_AFTER),
        differences={Difference.LACKING},
        states=(ProcessingStatus.COMPLETED,),
        applies=False,
        by="erika",
    )
    seen = 0
    async for step in reconcile(pool, meant, asks=asks):
        seen += 1
        assert (len(asked), step.looked_at) == (seen, len(asked[-1]))
    assert [len(some) for some in asked] == [2, 2, 1]
    assert sorted(itertools.chain.from_iterable(asked)) == sorted(ids)


async def test_a_receiver_that_cannot_be_asked_holds_up_nothing_else(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "STRETCH", 3)
    monkeypatch.setattr(reconciling, "ASKED_AT_ONCE", 2)
    for _ in range(3):
        await store(pool, **SYNCED)
        await store(pool, **ENDED)
    asked: list[int] = []

    async def asks(some: Sequence[Looked]) -> set[UUID]:
        asked.append(len(some))
        raise reconciling.ReceiverCheckError("it is away")

    meant = Reconciliation(
        which=Which(overdue_after=OVERDUE_AFTER),
        differences={Difference.LACKING, Difference.NEVER_ASKED},
        states=(ProcessingStatus.COMPLETED,),
        applies=True,
        by="erika",
    )
    steps = [step async for step in reconcile(pool, meant, asks=asks)]
    assert sum(step.delivered for step in steps) == 3
    assert len(asked) == 1
    assert [str(step.trouble) for step in steps if step.trouble] == ["it is away"]


async def test_the_receiver_is_told_again_of_what_was_erased(pool: Pool) -> None:
    erased, other = UUID(int=1), UUID(int=2)
    for email_id, status in ((erased, "failed"), (other, "failed"), (other, "synced")):
        await pool.execute(
            "INSERT INTO sync_events (kind, email, sync_status, sync_error, sync_retry_count)"
            " VALUES ('email.erased', $1, $2, 'away', 9)",
            email_id,
            status,
        )
    of = {Difference.UNTOLD}
    assert await run(pool, of) == ({Difference.UNTOLD: 2}, 0)
    assert await run(pool, of, applies=True, ticket_id="1") == ({}, 0)
    assert await run(pool, of, applies=True, ids=[erased]) == ({Difference.UNTOLD: 1}, 1)
    assert await run(pool, of, applies=True) == ({Difference.UNTOLD: 1}, 1)
    rows = await pool.fetch("SELECT * FROM sync_events ORDER BY sync_status")
    assert [row["sync_status"] for row in rows] == ["pending", "pending", "synced"]
    assert all(row["sync_next_attempt_at"] <= NOW + HOUR for row in rows)
    assert [row["sync_retry_count"] for row in rows] == [0, 0, 9]


async def test_failed_emails_are_meant_where_these_are_delivered(pool: Pool) -> None:
    await store(pool, **{**ENDED, "processing_status": "failed"})
    both = (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)
    assert (await run(pool))[0] == {}
    assert (await run(pool, states=both))[0] == {Difference.NEVER_ASKED: 1}


async def test_a_run_that_is_stopped_goes_on_where_it_was(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "STRETCH", 3)
    monkeypatch.setattr(reconciling, "BATCH", 2)
    # Many end at the same moment.
    ids = {await store(pool, **ENDED) for _ in range(10)}
    meant = Reconciliation(
        which=Which(overdue_after=OVERDUE_AFTER),
        differences=ALL,
        states=(ProcessingStatus.COMPLETED,),
        applies=True,
        by="erika",
    )
    steps = reconcile(pool, meant)
    first = await anext(steps)
    await steps.aclose()
    assert (first.looked_at, first.delivered) == (3, 3)
    left = [step async for step in reconcile(pool, meant, after=first.place)]
    assert sum(step.delivered for step in left) == len(ids) - 3
    assert left[-1].place is None
    assert await pool.fetchval("SELECT count(*) FROM email_events") == len(ids)


async def test_two_runs_at_once_ask_once_for_each(pool: Pool) -> None:
    ids = [await store(pool, **ENDED) for _ in range(50)]
    runs = await asyncio.gather(*(run(pool, applies=True) for _ in range(4)))
    assert sum(delivered for _, delivered in runs) == len(ids)
    assert await pool.fetchval("SELECT count(*) FROM email_events") == len(ids)


async def test_one_that_somebody_has_locked_holds_up_no_other(pool: Pool) -> None:
    held, free = await store(pool, **ENDED), await store(pool, **ENDED)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", held)
        assert (await run(pool, applies=True))[1] == 1
    assert (await row_of(pool, free))["sync_status"] == "pending"
    assert (await run(pool, {Difference.NEVER_ASKED}, applies=True))[1] == 1


async def test_large_archives_are_gone_through_by_their_indexes(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO incoming_emails (processing_status, completed_at, sync_status, synced_at)"
        " SELECT 'completed', now() - n * interval '1 second',"
        " CASE n % 4 WHEN 0 THEN 'failed' WHEN 1 THEN 'pending' ELSE 'synced' END, now()"
        " FROM generate_series(1, 40000) AS n"
    )
    await pool.execute("VACUUM ANALYZE incoming_emails")
    for statement, index in (
        (differences.FIND, "ix_incoming_emails_finished"),
        (differences.FIND_UNSYNCED, "ix_incoming_emails_unsynced"),
    ):
        arguments = [HOUR, "completed", NOW - 24 * HOUR, UUID(int=0), *[None] * 4, 2_000]
        rows = await pool.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {statement}", *arguments)
        plan = "\n".join(row[0] for row in rows)
        assert index in plan, plan
        assert "Seq Scan" not in plan, plan
        # A stretch, and not all that it could find.
        read = [int(rows) for rows in re.findall(r"Index Scan .*\(actual rows=(\d+)", plan)]
        assert read and max(read) < 2_200, plan


async def test_an_email_that_nobody_could_read_is_not_to_be_delivered(pool: Pool) -> None:
    failed = {**ENDED, "processing_status": "failed"}
    await store(pool, **failed, extracted_data='{"unreadable": "it is no JSON"}')
    await store(pool, **failed, extracted_data='{"repaired": ["a quote"]}')
    both = (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)
    assert await run(pool, states=both, applies=True) == ({Difference.NEVER_ASKED: 1}, 1)
