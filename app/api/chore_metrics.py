"""Chores in `/metrics`: when each last ended well, and how often it failed since."""

from collections.abc import Sequence

import asyncpg
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.api.look import Look, look_for_scrapes
from app.jobs.chore_rows import Standing, find_all
from app.jobs.chores import Chore


class ChoreCounts:
    """Looks at the chores.

    Args:
        chores: those that the settings ask for; the rows of others are no news.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", chores: Sequence[Chore]) -> None:
        self._pauses = {chore.name: chore.every_seconds for chore in chores}
        self._look: Look[list[Standing]] = look_for_scrapes(
            lambda: find_all(pool), nothing=[], what="chores"
        )

    async def look(self) -> list[Metric]:
        """As Prometheus sees them: none, where no worker has begun one yet."""
        failures = GaugeMetricFamily(
            "mailroom_chore_failures",
            "Runs of a chore since it last ended well, none of which did.",
            labels=["chore"],
        )
        ended_well = GaugeMetricFamily(
            "mailroom_chore_last_ok_timestamp_seconds",
            "When a chore last ended well.",
            labels=["chore"],
        )
        interval = GaugeMetricFamily(
            "mailroom_chore_interval_seconds",
            "Pause after a chore's end until it is due again.",
            labels=["chore"],
        )
        for chore in await self._look.see():
            if chore.name not in self._pauses:
                continue
            interval.add_metric([chore.name], self._pauses[chore.name])
            failures.add_metric([chore.name], chore.failures)
            if chore.last_ok_at is not None:
                ended_well.add_metric([chore.name], chore.last_ok_at.timestamp())
        return [failures, ended_well, interval]

    async def close(self) -> None:
        """Give up what is being looked at."""
        await self._look.close()
