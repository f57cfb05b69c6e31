"""Whether processing is paused, in `/metrics`."""

import asyncpg
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.api.look import Look, look_for_scrapes
from app.jobs import pausing
from app.jobs.pausing import Pause


class PauseState:
    """Looks whether processing is paused."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        async def find() -> list[Pause]:
            pause = await pausing.find(pool)
            return [pause] if pause else []

        self._look: Look[list[Pause] | None] = look_for_scrapes(find, nothing=None, what="pauses")

    async def look(self) -> list[Metric]:
        """As Prometheus sees it: nothing, where the database could not be asked."""
        paused = GaugeMetricFamily(
            "mailroom_processing_paused", "1 while a person has paused processing, else 0."
        )
        if (pauses := await self._look.see()) is not None:
            paused.add_metric([], len(pauses))
        return [paused]

    async def close(self) -> None:
        """Give up what is being looked at."""
        await self._look.close()
