"""The two lines behind the webhook in `/metrics`: how late they are, and what they found."""

import asyncpg
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.api.look import Look, look_for_scrapes
from app.zendesk.gaps import Gaps, find_gaps


class GapCounts:
    """Looks at the lines' cursors.

    Args:
        watched_every: the pause in seconds between two looks through Zendesk's lists; None: nobody
            looks, and so nobody is late.
    """

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", *, watched_every: float | None
    ) -> None:
        self._watched_every = watched_every
        self._look: Look[Gaps | None] = look_for_scrapes(
            lambda: find_gaps(pool), nothing=None, what="gaps"
        )

    async def look(self) -> list[Metric]:
        """As Prometheus sees them: none, where nobody has looked behind the webhook yet."""
        standing = await self._look.see()
        if standing is None or not (standing.lines or standing.backfilled):
            return []
        lag = GaugeMetricFamily(
            "mailroom_gap_lag_seconds",
            "Since a line last came to the end of Zendesk's list.",
            labels=["line"],
        )
        interval = GaugeMetricFamily(
            "mailroom_gap_interval_seconds",
            "Pause between two looks through Zendesk's list.",
            labels=["line"],
        )
        found = CounterMetricFamily(
            "mailroom_gap_emails", "Emails that no webhook had brought.", labels=["line"]
        )
        odd = CounterMetricFamily(
            "mailroom_gap_odd", "Items of Zendesk's of an unknown shape.", labels=["line"]
        )
        for line in standing.lines:
            if self._watched_every is not None and line.lag is not None:
                lag.add_metric([line.name], line.lag.total_seconds())
                interval.add_metric([line.name], self._watched_every)
            found.add_metric([line.name], line.found)
            odd.add_metric([line.name], line.odd)
        found.add_metric(["backfill"], standing.backfilled)
        waiting = GaugeMetricFamily(
            "mailroom_gap_waiting",
            "Calls that were not delivered and that nobody has looked into.",
            value=standing.waiting,
        )
        return [lag, interval, found, odd, waiting]

    async def close(self) -> None:
        """Give up what is being looked at."""
        await self._look.close()
