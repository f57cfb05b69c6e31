"""The canary in `/metrics`: how long it takes, and how often it failed."""

import asyncpg
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.alerts.canary import Standing, find_standing
from app.api.look import Look, look_for_scrapes
from app.settings import Settings


class CanaryCounts:
    """Looks at the row of the canary."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: Settings) -> None:
        self._settings = settings
        self._look: Look[Standing | None] = look_for_scrapes(
            lambda: find_standing(pool), nothing=None, what="canary"
        )

    async def look(self) -> list[Metric]:
        """As Prometheus sees them: none, where none was ever sent."""
        standing = await self._look.see()
        if standing is None:
            return []
        seconds = GaugeMetricFamily(
            "mailroom_canary_seconds",
            "From the moment at which the last canary that completed was sent to a step of it.",
            labels=["step"],
        )
        for step, took in (
            ("accepted", standing.accept_seconds),
            ("claimed", standing.claim_seconds),
            ("completed", standing.complete_seconds),
        ):
            if took is not None:
                seconds.add_metric([step], took)
        ended = CounterMetricFamily(
            "mailroom_canaries", "Canaries, by what became of them.", labels=["outcome"]
        )
        ended.add_metric(["completed"], standing.completed_total)
        ended.add_metric(["failed"], standing.failed_total)
        found: list[Metric] = [seconds, ended]
        # The row outlives its canaries: where none is sent any more, its age is no news.
        if self._settings.canary_seconds and standing.since_completed is not None:
            found.append(
                GaugeMetricFamily(
                    "mailroom_canary_interval_seconds",
                    "Longest time from a canary that goes the whole way to the next one.",
                    value=self._settings.canary_interval_seconds,
                )
            )
            found.append(
                GaugeMetricFamily(
                    "mailroom_canary_age_seconds",
                    "Since a canary last went the whole way.",
                    value=standing.since_completed.total_seconds(),
                )
            )
        return found

    async def close(self) -> None:
        """Give up what is being looked at."""
        await self._look.close()
