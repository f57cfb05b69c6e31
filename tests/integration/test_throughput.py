"""What came and ended, minute by minute: every email is counted once, whenever somebody looks."""

from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from app.desk.figures import Span
from app.jobs import throughput
from app.jobs.throughput import STEPS, Throughput

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# One in ten minutes for forty days, the first of them now: each took four seconds, every tenth is
# failed, and every fifth was retried twice.
FILL = """
INSERT INTO incoming_emails (processing_status, received_at, created_at, completed_at, retry_count)
SELECT CASE WHEN n % 10 = 9 THEN 'failed' ELSE 'completed' END, at, at, at + interval '4 seconds',
    CASE WHEN n % 5 = 0 THEN 2 ELSE 0 END
FROM (SELECT n, now() - n * interval '10 minutes' - interval '4 seconds' AS at
    FROM generate_series(0, 5759) AS n) AS came
"""


async def look(pool: Pool, span: Span) -> Throughput:
    return await throughput.look(pool, span.length, span.parts)


async def keep_all_up(pool: Pool) -> None:
    while not await throughput.keep_up(pool):
        pass


async def test_nobody_kept_it_up_and_the_current_minute_is_there_all_the_same(pool: Pool) -> None:
    await pool.execute("INSERT INTO incoming_emails (created_at) VALUES (now())")
    seen = await look(pool, Span.HOUR)
    assert len(seen.parts) == 60
    assert seen.total.accepted == 1
    assert sum(part.accepted for part in seen.parts[-2:]) == 1
    assert seen.parts[-1].backlog == 1
    assert seen.percentile(0.5) is None


async def test_a_month_is_counted_once_and_stays_when_emails_go(pool: Pool) -> None:
    await pool.execute(FILL)
    await keep_all_up(pool)
    month = await look(pool, Span.MONTH)
    # Its first part begins with the part.
    assert 30 * 144 - 36 <= month.total.accepted <= 30 * 144 + 1
    ended = month.total.completed + month.total.failed
    assert abs(ended - month.total.accepted) <= 1
    assert month.total.failed == pytest.approx(ended / 10, abs=1)
    assert month.total.retried == pytest.approx(2 * ended / 5, abs=2)
    day = await look(pool, Span.DAY)
    assert day.total.accepted in (143, 144, 145)
    await pool.execute("DELETE FROM incoming_emails WHERE created_at < now() - interval '2 hours'")
    await throughput.keep_up(pool)
    again = await look(pool, Span.MONTH)
    assert again.total.accepted == pytest.approx(month.total.accepted, abs=1)
    kept = await pool.fetchval(
        "SELECT min(minute) > now() - $1::interval FROM throughput",
        throughput.KEPT + timedelta(minutes=2),
    )
    assert kept


async def test_two_who_keep_it_up_and_one_who_was_away_count_the_same(pool: Pool) -> None:
    await pool.execute(FILL)
    await keep_all_up(pool)
    before = await look(pool, Span.DAY)
    await pool.execute("DELETE FROM throughput WHERE minute > now() - interval '7 hours'")
    await keep_all_up(pool)
    await keep_all_up(pool)
    after = await look(pool, Span.DAY)
    assert after.total.accepted == pytest.approx(before.total.accepted, abs=1)
    assert after.total.completed == pytest.approx(before.total.completed, abs=1)
    kept = await pool.fetchval(
        "SELECT count(accepted) FROM throughput WHERE minute > now() - interval '6 hours'"
    )
    assert kept in range(356, 361)


async def test_percentiles_are_right_to_a_tenth(pool: Pool) -> None:
    await pool.execute("""
        INSERT INTO incoming_emails (processing_status, created_at, completed_at)
        SELECT 'completed', now() - n * interval '1 second', now()
        FROM generate_series(1, 1000) AS n
    """)
    seen = await look(pool, Span.HOUR)
    tenth = 2 ** (1 / STEPS / 2) - 1
    for share in (0.5, 0.95, 0.99):
        found = seen.percentile(share)
        assert found is not None
        assert found.total_seconds() == pytest.approx(1000 * share, rel=tenth + 0.01)


async def test_the_backlog_is_sampled_with_the_oldest_age(pool: Pool) -> None:
    await pool.execute("""
        INSERT INTO incoming_emails (processing_status, received_at)
        VALUES ('received', now() - interval '10 minutes'), ('queued', now()), ('failed', now())
    """)
    await throughput.keep_up(pool)
    row = await pool.fetchrow("SELECT backlog, oldest_seconds FROM throughput WHERE backlog > 0")
    assert row is not None
    assert row["backlog"] == 2
    assert row["oldest_seconds"] in range(600, 700)
