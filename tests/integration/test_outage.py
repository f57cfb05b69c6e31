"""What an outage would cost is told, and whether email would be found that comes meanwhile."""

from datetime import timedelta
from typing import Any

import pytest

from app.zendesk.outage import outage_now
from app.zendesk.watch import INVOCATIONS, TICKETS


async def looked(pool: Any, name: str, age: timedelta, failures: int = 0) -> None:
    await pool.execute(
        "INSERT INTO chores (name, last_ok_at, failures) VALUES ($1, now() - $2::interval, $3)"
        " ON CONFLICT (name) DO UPDATE SET last_ok_at = excluded.last_ok_at,"
        " failures = excluded.failures",
        *(name, age, failures),
    )


async def test_email_is_found_while_both_lines_of_the_detector_work(pool: Any) -> None:
    assert not (await outage_now(pool, 60.0)).is_found
    await looked(pool, INVOCATIONS, timedelta(seconds=20))
    assert not (await outage_now(pool, 60.0)).is_found
    await looked(pool, TICKETS, timedelta(seconds=40))
    outage = await outage_now(pool, 60.0)
    assert outage.is_found
    assert outage.repeated_seconds == 60
    assert "found by the gap detector, which looked 40 s ago" in outage.summary
    # Without a token nothing looks, whatever was looked at before.
    silent = await outage_now(pool, None)
    assert not silent.is_found
    assert "Nobody would find" in silent.summary


@pytest.mark.parametrize(("age", "failures"), [(timedelta(hours=1), 0), (timedelta(seconds=5), 1)])
async def test_a_line_that_is_late_or_fails_finds_nothing(
    pool: Any, age: timedelta, failures: int
) -> None:
    await looked(pool, INVOCATIONS, timedelta(seconds=1))
    await looked(pool, TICKETS, age, failures)
    assert not (await outage_now(pool, 60.0)).is_found


async def test_the_busiest_day_at_this_hour_counts(pool: Any) -> None:
    await pool.execute(
        "INSERT INTO email_hours (hour, emails) SELECT date_trunc('hour', now()) - ago, emails"
        " FROM (VALUES (interval '1 day', 120), (interval '2 days', 90), (interval '1 hour', 900),"
        " (interval '21 days', 5000)) AS hours (ago, emails)"
    )
    outage = await outage_now(pool, 60.0)
    assert outage.emails_a_minute == 2.0
    assert "2.0 emails a minute" in outage.summary
