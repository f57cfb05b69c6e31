"""The overview's figures: they are right, and no query reads the whole table."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest

from app.api.emails import COUNT
from app.desk import figures
from app.desk.figures import DAY, Lookout, Span
from app.jobs import heartbeat, throughput
from app.zendesk import email_hours

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# Two years of email, one in ten minutes.
FILL = """
INSERT INTO incoming_emails (
    from_email, subject, processing_status, received_at, created_at, started_at, completed_at,
    processed_at, processing_error, claimed_by
)
SELECT 'erika@example.com', 'Hallo', CASE WHEN n % 50 = 3 THEN 'failed' ELSE 'completed' END,
    at, at, at, at + n % 9 * interval '1 second', at + n % 9 * interval '1 second', 'no text', 'w'
FROM (SELECT n, now() - n * interval '10 minutes' AS at FROM generate_series(1, 100000) AS n) AS t
"""


async def test_no_figure_reads_the_whole_table(pool: Pool) -> None:
    await pool.execute(FILL)
    await pool.execute("VACUUM ANALYZE incoming_emails")
    now = datetime.now(UTC)
    queries: list[tuple[str, list[object]]] = [
        (COUNT, [[*figures.UNCOMPLETED], figures.COUNTED_AT_MOST]),
        (figures.SELECT_OLDEST_WAITING, []),
        (throughput.FIND_COUNTED, []),
        (throughput.KEEP, [now - DAY, now]),
        (throughput.COUNT_NEWEST, [now - DAY, now]),
        (throughput.SAMPLE, [throughput.SAMPLED_AT_MOST]),
        (throughput.COUNT_WAITING_FOR_RETRY, [figures.COUNTED_AT_MOST]),
        (figures.SELECT_TASKS, [figures.TASKS_READ, figures.TASKS_LISTED]),
        (figures.SELECT_WORKERS, [figures.COUNTED_AT_MOST, figures.WORKERS_LISTED]),
        (figures.GROUP_FAILURES, [figures.FAILURES_GROUPED]),
        (figures.SELECT_LONGEST_RUNS, []),
        (email_hours.FIND_LAST, [email_hours.LOOKED_AT_FOR_LAST]),
        (email_hours.FIND_SETTLED, [email_hours.KEPT]),
        (email_hours.COUNT, [now - DAY, now]),
    ]
    for query, arguments in queries:
        plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {query}", *arguments))
        assert "Seq Scan on incoming_emails" not in plan, plan


async def test_the_figures_are_those_of_the_table(pool: Pool) -> None:
    await pool.execute(FILL)
    await pool.execute("INSERT INTO incoming_emails (received_at) VALUES (now() - interval '1 h')")
    lookout = Lookout(pool)
    seen = await lookout.look()
    assert seen.states == {"received": 1, "queued": 0, "processing": 0, "failed": 2000}
    assert seen.oldest_waiting is not None
    assert seen.oldest_waiting.age >= timedelta(hours=1)
    assert [failures.failure for failures in seen.failures] == ["no text"]
    assert seen.longest_runs[0].took == timedelta(seconds=8)
    # One of them is that which waits.
    assert (await lookout.look_at(Span.HOUR)).total.accepted in (6, 7)


async def test_workers_are_alive_then_silent_then_forgotten(pool: Pool) -> None:
    started_at = datetime.now(UTC)
    me = heartbeat.worker_name()
    await pool.execute(
        "INSERT INTO incoming_emails (processing_status, claimed_by) VALUES ('processing', $1)", me
    )
    await heartbeat.beat(pool, name=heartbeat.worker_name(), threads=8, started_at=started_at)
    await let_pass(pool, heartbeat.SILENT_AFTER)
    silent = await Lookout(pool).look()
    assert [(worker.name, worker.is_alive) for worker in silent.workers] == [(me, False)]
    assert silent.workers_alive == 0
    await heartbeat.beat(pool, name=heartbeat.worker_name(), threads=8, started_at=started_at)
    alive = await Lookout(pool).look()
    assert [(w.name, w.is_alive, w.in_work, w.threads) for w in alive.workers] == [(me, True, 1, 8)]
    assert alive.workers_alive == 1
    await pool.execute("UPDATE workers SET name = 'another:7'")
    await let_pass(pool, heartbeat.FORGOTTEN_AFTER)
    await heartbeat.beat(pool, name=heartbeat.worker_name(), threads=8, started_at=started_at)
    assert [worker.name for worker in (await Lookout(pool).look()).workers] == [me]


async def test_a_worker_that_leaves_takes_only_its_own_name_off_the_list(pool: Pool) -> None:
    before, now = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
    await heartbeat.beat(pool, name=heartbeat.worker_name(), threads=8, started_at=now)
    # In a container that was started anew the next process has the name of the last one.
    await heartbeat.leave(pool, started_at=before)
    assert (await Lookout(pool).look()).workers_alive == 1
    await heartbeat.leave(pool, started_at=now)
    assert (await Lookout(pool).look()).workers == []


async def test_all_who_watch_wait_for_one_look_at_a_database_that_hangs(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookout = Lookout(pool)
    looks = 0
    look = lookout._look

    async def counted(connection: Any) -> figures.Figures:
        nonlocal looks
        looks += 1
        return await look(connection)

    monkeypatch.setattr(lookout, "_look", counted)
    monkeypatch.setattr(figures, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(figures, "REMEMBERED_SECONDS", 600.0)
    async with pool.acquire() as elsewhere, elsewhere.transaction():
        await elsewhere.execute("LOCK TABLE incoming_emails")
        seen = await asyncio.gather(*(lookout.look() for _ in range(4)), return_exceptions=True)
    assert [type(error) for error in seen] == [TimeoutError] * 4
    assert looks == 1
    monkeypatch.setattr(figures, "REMEMBERED_SECONDS", 0.0)
    monkeypatch.setattr(figures, "REST_PER_COST", 0.0)
    monkeypatch.setattr(figures, "LOOK_SECONDS", 60.0)
    assert (await lookout.look()).workers == []


async def let_pass(pool: Pool, time: timedelta) -> None:
    await pool.execute("UPDATE workers SET seen_at = seen_at - $1::interval", time)
