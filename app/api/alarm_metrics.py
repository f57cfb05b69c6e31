"""Open alarms in `/metrics`."""

import asyncpg
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.alerts.alarms import count_open
from app.api.look import Look, look_for_scrapes
from app.models.alarm import AlarmKind


class AlarmCounts:
    """Looks at the alarms, which are few."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._look: Look[dict[AlarmKind, int]] = look_for_scrapes(
            lambda: count_open(pool), nothing={}, what="alarms"
        )

    async def look(self) -> list[Metric]:
        """As Prometheus sees them. Where they could not be counted there are none."""
        alarms = GaugeMetricFamily(
            "mailroom_alarm", "Alarms that are open, by what they are about.", labels=["kind"]
        )
        for kind, count in (await self._look.see()).items():
            alarms.add_metric([kind], count)
        return [alarms]

    async def close(self) -> None:
        """Give up what is being counted."""
        await self._look.close()
