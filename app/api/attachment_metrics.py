"""Files of emails in `/metrics`: by state, their bytes, and how far fetching is behind."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import attrs
import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.api.look import Look
from app.attachments.counts import Counts, count_files, find_lag
from app.database.errors import CANNOT_ASK
from app.models.email_attachment import AttachmentState

log = structlog.get_logger(__name__)

REST_SECONDS = 5.0
REST_PER_COST = 100.0
# Alerts look at what is pending, so one slow answer must not blind them for long.
LONGEST_REST_PENDING_SECONDS = 30.0
LONGEST_REST_ENDED_SECONDS = 600.0
GIVE_UP_SECONDS = 30.0
SCRAPE_WAITS_SECONDS = 2.0

PENDING = (AttachmentState.PENDING,)
ENDED = tuple(state for state in AttachmentState if state not in PENDING)


@attrs.frozen
class _Seen:
    counts: Counts
    lag: timedelta | None = None


NOTHING = _Seen({})


class AttachmentCounts:
    """Looks at the files of all emails, no oftener than the database bears. The few that are
    pending do not wait for the archive."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        async def pending() -> _Seen:
            return _Seen(await count_files(pool, PENDING), await find_lag(pool))

        async def ended() -> _Seen:
            return _Seen(await count_files(pool, ENDED))

        self._parts = [
            _look(pending, LONGEST_REST_PENDING_SECONDS),
            _look(ended, LONGEST_REST_ENDED_SECONDS),
        ]

    async def look(self) -> list[Metric]:
        """As Prometheus sees them. What could not be counted is missing."""
        files = GaugeMetricFamily(
            "mailroom_attachment_files", "Files of emails in a state.", labels=["state"]
        )
        kept = GaugeMetricFamily("mailroom_attachment_kept_bytes", "Bytes of the files kept.")
        behind = GaugeMetricFamily(
            "mailroom_attachment_lag_seconds",
            "How long the file is due that waits longest for a worker; 0 where none does.",
        )
        for seen in await asyncio.gather(*(part.see() for part in self._parts)):
            for state, count in seen.counts.items():
                files.add_metric([state], count.files)
                if state is AttachmentState.KEPT:
                    kept.add_metric([], count.bytes)
            if seen.lag is not None:
                behind.add_metric([], seen.lag.total_seconds())
        return [files, kept, behind]

    async def close(self) -> None:
        """Give up what is being counted."""
        for part in self._parts:
            await part.close()


def _look(take: Callable[[], Awaitable[_Seen]], longest_rest_seconds: float) -> Look[_Seen]:
    async def ask() -> _Seen:
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                return await take()
        except CANNOT_ASK as error:
            log.warning("attachments_not_counted", error=type(error).__name__)
            return NOTHING

    return Look(
        ask,
        rest_seconds=lambda cost: max(
            REST_SECONDS, min(REST_PER_COST * cost, longest_rest_seconds)
        ),
        patience_seconds=SCRAPE_WAITS_SECONDS,
        at_first=NOTHING,
    )
