"""Files of emails in `/metrics`: by state, their bytes, and how far fetching is behind."""

import asyncio
from datetime import timedelta

import asyncpg
import attrs
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.api.look import look_for_scrapes
from app.attachments.counts import Counts, count_files, find_lag
from app.models.email_attachment import AttachmentState

LONGEST_REST_ENDED_SECONDS = 600.0

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

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, are_fetched: bool) -> None:
        async def pending() -> _Seen:
            # What nobody is to fetch is not late.
            lag = await find_lag(pool) if are_fetched else timedelta(0)
            return _Seen(await count_files(pool, PENDING), lag)

        async def ended() -> _Seen:
            return _Seen(await count_files(pool, ENDED))

        self._parts = [
            look_for_scrapes(pending, nothing=NOTHING, what="pending files"),
            look_for_scrapes(
                ended,
                nothing=NOTHING,
                what="files",
                longest_rest_seconds=LONGEST_REST_ENDED_SECONDS,
            ),
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
