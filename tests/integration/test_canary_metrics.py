"""The canary in `/metrics`, while one is sent and once none is any more."""

import asyncio

import asyncpg
from support import WAIT_SECONDS, make_settings

from app.api.canary_metrics import CanaryCounts

COMPLETED = """
INSERT INTO canaries (id, sent_at, last_completed_at, completed_total, complete_seconds)
VALUES (1, now() - interval '2 days', now() - interval '2 days', 7, 0.5)
"""
AGE, INTERVAL = "mailroom_canary_age_seconds", "mailroom_canary_interval_seconds"


async def test_a_canary_is_late_only_where_one_is_sent(
    pool: "asyncpg.Pool[asyncpg.Record]",
) -> None:
    await pool.execute(COMPLETED)
    told = await samples_of(pool, canary_seconds=3_600, canary_deadline_seconds=30)
    assert told.pop(AGE) >= 2 * 24 * 3_600
    assert told.pop(INTERVAL) == 3_630
    assert told["mailroom_canaries_total"] == 7
    # Its row stays.
    assert await samples_of(pool, canary_seconds=0) == told


async def samples_of(pool: "asyncpg.Pool[asyncpg.Record]", **values: float) -> dict[str, float]:
    """What Prometheus sees of it, but for what failed."""
    counts = CanaryCounts(pool, make_settings(**values))
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := await counts.look()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await counts.close()
    samples = [sample for metric in found for sample in metric.samples]
    return {one.name: one.value for one in samples if one.labels.get("outcome") != "failed"}
