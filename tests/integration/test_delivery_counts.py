"""What metrics and overview tell of deliveries and chores, and that no look at them reads the whole
table."""

import re
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
from app.sync.refusals import FIND, MOST_READ, Refusal, find_refusal

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


def refused(minutes: int, **columns: Any) -> dict[str, Any]:
    """An email that ended so many minutes ago."""
    ended = NOW - timedelta(minutes=minutes)
    one = {"sync_status": "pending", "sync_retry_count": 1, "sync_error": "it answered 401"}
    return {"completed_at": ended, "sync_next_attempt_at": NOW + HOUR, **one, **columns}


def delivered(minutes: int, at: int) -> dict[str, Any]:
    """One that ended so many minutes ago and was delivered later."""
    synced_at = NOW - timedelta(minutes=at)
    ended = NOW - timedelta(minutes=minutes)
    return {"completed_at": ended, "sync_status": "synced", "synced_at": synced_at}


IN_THE_JOB = {"processing_status": "queued", "completed_at": None, "sync_status": "pending"}
WAITS = {"sync_status": "pending", "sync_next_attempt_at": NOW, "completed_at": NOW}


@pytest.mark.parametrize(
    ("emails", "changes", "reason"),
    [
        ([refused(5)], "failures = 0", "it answered 401"),
        ([refused(9, sync_error="404"), refused(5), WAITS], "failures = 0", "it answered 401"),
        ([refused(5), delivered(9, at=8), IN_THE_JOB], "failures = 0", "it answered 401"),
        ([refused(5, processing_status="failed")], "failures = 0", "it answered 401"),
        # One that is bad; the first ones after the mend, of which nothing newer ended.
        ([refused(5), delivered(4, at=4)], "failures = 0", None),
        ([refused(5), {**delivered(4, at=4), "processing_status": "failed"}], "failures = 0", None),
        ([refused(5), delivered(9, at=1)], "failures = 0", None),
        # It was never asked, or was asked no more than to wait.
        ([WAITS, delivered(9, at=9)], "failures = 0", None),
        ([refused(5, sync_retry_count=0)], "failures = 0", None),
        # It failed otherwise.
        ([refused(5)], "failures = 1", None),
        ([refused(5)], "updated_at = now()", None),
        ([refused(5)], "state = 'open'", None),
        ([refused(5)], "paused_at = now()", None),
        ([refused(5)], RESTS, None),
        ([refused(5)], "name = 'another'", None),
    ],
)
async def test_a_receiver_refuses_where_what_was_sent_last_was_refused(
    pool: Pool, emails: list[dict[str, Any]], changes: str, reason: str | None
) -> None:
    await pool.execute(MAKE, receiver_of(SETTINGS))
    await pool.execute("UPDATE sync_receivers SET updated_at = $1", NOW - HOUR)
    await pool.execute(f"UPDATE sync_receivers SET {changes}")
    for columns in emails:
        await store(pool, **columns)
    refusal = (await count_deliveries(pool, receiver_of(SETTINGS))).refusal
    assert (refusal and refusal.reason) == reason
    assert (await count_deliveries(pool, None)).refusal is None


async def test_whether_a_receiver_refuses_is_seen_by_indexes_and_by_few_rows(pool: Pool) -> None:
    await pool.execute(MAKE, "one")
    await pool.execute("UPDATE sync_receivers SET updated_at = $1", NOW - HOUR)
    await pool.execute(
        "INSERT INTO incoming_emails (processing_status, completed_at, sync_status, sync_error,"
        " sync_retry_count, synced_at)"
        " SELECT 'completed', now() - n * interval '1 second', state, 'it answered 401',"
        " (state = 'pending')::int, CASE state WHEN 'synced' THEN now() - interval '1 day' END"
        " FROM generate_series(1, 20000) AS n,"
        " LATERAL (SELECT CASE WHEN n < 5000 THEN 'pending' ELSE 'synced' END) AS one (state)"
    )
    await pool.execute("VACUUM ANALYZE incoming_emails")
    rows = await pool.fetch(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {FIND}", "one", MOST_READ)
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on incoming_emails" not in plan, plan
    assert "ix_incoming_emails_unsynced" in plan, plan
    assert "ix_incoming_emails_finished" in plan, plan
    read = [int(number) for number in re.findall(r"actual rows=(\d+)", plan)]
    assert max(read) <= MOST_READ, plan
    assert (await find_refusal(pool, "one")) == Refusal("it answered 401")


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
