"""What metrics and overview tell of deliveries and chores, and that no look at them reads the whole
table."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest
from support import make_settings

from app.api.chore_metrics import ChoreCounts
from app.api.delivery_metrics import DeliveryCounts
from app.api.metrics import Counting
from app.chores_of import chores_of
from app.desk.figures import Lookout
from app.jobs.chores import Chore, ChoreContext
from app.settings import Settings
from app.sync.breaker import MAKE
from app.sync.counts import COUNT, count_deliveries, receiver_of

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
SECRETS = "whsec_" + "bWFpbHJvb20tdGVzdHMtYXJlLXNpZ25lZC1ieS10aGlz"
SETTINGS = make_settings(sync_url="https://crm.example.com/", sync_secrets=SECRETS)


async def store(pool: Pool, **columns: Any) -> None:
    columns = {"processing_status": "completed", "completed_at": NOW - 2 * HOUR, **columns}
    numbers = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    await pool.execute(
        f"INSERT INTO incoming_emails ({', '.join(columns)}) VALUES ({numbers})",
        *columns.values(),
    )


async def store_event(pool: Pool, state: str, at: datetime | None) -> None:
    await pool.execute(
        "INSERT INTO sync_events (kind, email, sync_status, sync_next_attempt_at)"
        " VALUES ('email.erased', gen_random_uuid(), $1, $2)",
        state,
        at,
    )


async def samples(counting: Counting) -> dict[tuple[str, ...], float]:
    found = {
        (sample.name.removeprefix("mailroom_"), *sample.labels.values()): sample.value
        for family in await counting.look()
        for sample in family.samples
    }
    await counting.close()
    return found


async def deliveries(pool: Pool, settings: Settings = SETTINGS) -> dict[tuple[str, ...], float]:
    return await samples(DeliveryCounts(pool, settings))


async def test_deliveries_are_counted_and_their_lag_is_of_what_nobody_has(pool: Pool) -> None:
    for columns in (
        {"sync_status": "pending", "sync_next_attempt_at": NOW - HOUR},
        # In a worker's hands; in the job again; to be tried later.
        {
            "sync_status": "pending",
            "sync_next_attempt_at": NOW - 3 * HOUR,
            "sync_lease_expires_at": NOW + HOUR,
        },
        {
            "sync_status": "pending",
            "sync_next_attempt_at": NOW - 3 * HOUR,
            "processing_status": "queued",
            "completed_at": None,
        },
        {"sync_status": "pending", "sync_next_attempt_at": NOW + HOUR},
        {"sync_status": "failed"},
        {"sync_status": "synced"},
        {},
    ):
        await store(pool, **columns)
    for state, at in (("pending", NOW + HOUR), ("pending", NOW + HOUR), ("failed", None)):
        await store_event(pool, state, at)
    await store_event(pool, "synced", None)
    found = await deliveries(pool)
    since = (datetime.now(UTC) - NOW).total_seconds()
    assert 3_600 <= found.pop(("delivery_lag_seconds",)) <= 3_600 + since
    assert 7_200 <= found.pop(("delivery_pending_age_seconds",)) <= 7_200 + since
    assert found == {
        ("undelivered_emails", "pending"): 4,
        ("undelivered_emails", "failed"): 1,
        ("undelivered_events", "pending"): 2,
        ("undelivered_events", "failed"): 1,
        **{
            ("receiver_state", state): 0
            for state in ("closed", "open", "half_open", "paused", "resting")
        },
    }
    seen = (await Lookout(pool).look()).deliveries
    assert (seen.pending, seen.failed) == (4, 1)
    assert (seen.untold, seen.never_told) == (2, 1)


async def test_an_erasure_that_the_receiver_is_to_be_told_of_can_be_late_too(pool: Pool) -> None:
    await store_event(pool, "pending", NOW - HOUR)
    found = await deliveries(pool)
    since = (datetime.now(UTC) - NOW).total_seconds()
    assert 3_600 <= found["delivery_lag_seconds",] <= 3_600 + since


async def test_what_waits_is_not_late_where_nothing_is_delivered_any_more(pool: Pool) -> None:
    await store(pool, sync_status="pending", sync_next_attempt_at=NOW - HOUR)
    await store_event(pool, "pending", NOW - HOUR)
    assert (await deliveries(pool))["delivery_lag_seconds",] >= 3_600
    nobody = await deliveries(pool, make_settings())
    assert nobody["delivery_lag_seconds",] == 0
    assert nobody["undelivered_emails", "pending"] == 1


RESTS = "rests_until = now() + interval '1 hour'"


@pytest.mark.parametrize(
    ("changes", "stands", "reason"),
    [
        ("state = 'closed'", "closed", None),
        ("state = 'open', reason = 'it answered 503'", "open", "it answered 503"),
        ("state = 'half_open', reason = 'it answered 503'", "half_open", "it answered 503"),
        ("state = 'open', paused_at = now(), pause_reason = '410'", "paused", "410"),
        (f"{RESTS}, reason = 'it answered 429'", "resting", "it answered 429"),
        (f"{RESTS}, state = 'open', reason = 'it answered 503'", "open", "it answered 503"),
        ("rests_until = now()", "closed", None),
    ],
)
async def test_how_the_receiver_stands_is_told(
    pool: Pool, changes: str, stands: str, reason: str | None
) -> None:
    await pool.execute(MAKE, receiver_of(SETTINGS))
    await pool.execute(MAKE, "another")
    await pool.execute(f"UPDATE sync_receivers SET {changes} WHERE name <> 'another'")
    found = await deliveries(pool)
    states = {key[1]: value for key, value in found.items() if key[0] == "receiver_state"}
    assert [state for state, value in states.items() if value] == [stands]
    receiver = (await Lookout(pool, receiver=receiver_of(SETTINGS)).look()).deliveries.receiver
    assert receiver is not None
    assert (receiver.reason, receiver.is_well) == (reason, stands == "closed")
    nobody = await deliveries(pool, make_settings())
    assert not any(value for key, value in nobody.items() if key[0] == "receiver_state")


async def test_chores_are_told_of_but_not_those_of_other_settings(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO chores (name, next_run_at, last_ok_at, failures, last_error) VALUES"
        " ('prune', now(), to_timestamp(1000), 3, 'away'), ('gaps', now(), NULL, 1, 'away'),"
        " ('former', now() - interval '2 hours', to_timestamp(1000), 9, 'away')"
    )
    told = {
        ("chore_failures", "prune"): 3,
        ("chore_failures", "gaps"): 1,
        ("chore_last_ok_timestamp_seconds", "prune"): 1_000,
        ("chore_interval_seconds", "prune"): 60,
        ("chore_interval_seconds", "gaps"): 60,
    }
    # Without a worker, nobody can tell.
    former = {
        ("chore_failures", "former"): 9,
        ("chore_last_ok_timestamp_seconds", "former"): 1_000,
        ("chore_interval_seconds", "former"): 60,
    }
    chores = [Chore(name, 60, nothing) for name in ("prune", "gaps", "former")]
    assert await samples(ChoreCounts(pool, chores)) == told | former
    await pool.execute("INSERT INTO workers (name) VALUES ('one')")
    assert await samples(ChoreCounts(pool, chores)) == told
    failing = (await Lookout(pool).look()).failing_chores
    assert [(chore.name, chore.failures, chore.last_error) for chore in failing] == [
        ("prune", 3, "away")
    ]


async def nothing(_: ChoreContext) -> None:
    """Do nothing."""


async def test_nothing_is_told_of_a_chore_that_is_switched_off(pool: Pool) -> None:
    # It was done each week, and its row stays.
    await pool.execute(
        "INSERT INTO chores (name, next_run_at, last_ok_at, failures) VALUES"
        " ('prune', now() + interval '5 days', to_timestamp(1000), 3)"
    )
    asked_for = chores_of(make_settings(keep_events_days=30, prune_every_seconds=604_800))
    assert await samples(ChoreCounts(pool, asked_for)) == {
        ("chore_failures", "prune"): 3,
        ("chore_last_ok_timestamp_seconds", "prune"): 1_000,
        ("chore_interval_seconds", "prune"): 604_800,
    }
    assert await samples(ChoreCounts(pool, chores_of(make_settings()))) == {}


async def test_counting_deliveries_reads_their_indexes_alone(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO incoming_emails (processing_status, completed_at, sync_status,"
        " sync_next_attempt_at)"
        " SELECT 'completed', now(), CASE WHEN n % 1000 = 0 THEN 'pending' ELSE 'synced' END,"
        " now() - n * interval '1 second' FROM generate_series(1, 20000) AS n"
    )
    await pool.execute(
        "INSERT INTO sync_events (kind, email, sync_status, sync_next_attempt_at)"
        " SELECT 'email.erased', gen_random_uuid(),"
        " CASE n % 1000 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' ELSE 'synced' END,"
        " now() - n * interval '1 second' FROM generate_series(1, 20000) AS n"
    )
    await pool.execute("VACUUM ANALYZE incoming_emails, sync_events")
    plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {COUNT}", None))
    assert "Seq Scan" not in plan, plan
    used = {word for word in plan.replace("\n", " ").split() if word.startswith("ix_")}
    assert used == {
        "ix_incoming_emails_unsynced",
        "ix_incoming_emails_deliver",
        "ix_incoming_emails_sync_failed",
        "ix_sync_events_due",
        "ix_sync_events_failed",
    }, plan
    assert (await count_deliveries(pool, None, at_most=7)).pending == 7
