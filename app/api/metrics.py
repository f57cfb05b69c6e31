"""`/metrics` of a web process: what it counted, and how many emails are in each state.

The states are read from the database, not more often than it bears: what took a time is left alone
for up to a hundred times as long. So no number of scrapes is a burden on it, and counts of a large
archive are some minutes old.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import asyncpg
from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.api.emails import Counts, count_by_status
from app.api.look import look_for_scrapes
from app.api.tokens import ANSWERS_OF_THE_GUARD, REMEMBERED_SECONDS, needs
from app.models.api_token import Scope
from app.models.incoming_email import ProcessingStatus
from app.telemetry.process_metrics import counted_here

UNFINISHED = (ProcessingStatus.RECEIVED, ProcessingStatus.QUEUED, ProcessingStatus.PROCESSING)
FINISHED = (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)

LONGEST_REST_FINISHED_SECONDS = 600.0


class EmailCounts:
    """How many emails are in each state. The few unfinished ones do not wait for the archive."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        nothing: Counts = {}
        self._parts = [
            look_for_scrapes(
                lambda: count_by_status(pool, UNFINISHED), nothing=nothing, what="unfinished emails"
            ),
            look_for_scrapes(
                lambda: count_by_status(pool, FINISHED),
                nothing=nothing,
                what="finished emails",
                longest_rest_seconds=LONGEST_REST_FINISHED_SECONDS,
            ),
        ]

    async def look(self) -> list[Metric]:
        """As Prometheus sees them. A state that could not be counted is missing."""
        emails = GaugeMetricFamily("mailroom_emails", "Emails in a state.", labels=["state"])
        oldest = GaugeMetricFamily(
            "mailroom_oldest_email_age_seconds",
            "Time since the oldest email in a state was received; 0 where there is none.",
            labels=["state"],
        )
        for found in await asyncio.gather(*(part.see() for part in self._parts)):
            for state, count in found.items():
                emails.add_metric([state], count.emails)
                oldest.add_metric([state], count.oldest_age.total_seconds())
        return [emails, oldest]

    async def close(self) -> None:
        """Give up what is being counted."""
        for part in self._parts:
            await part.close()


class Counting(Protocol):
    """Looks at something of the database for each scrape, as `EmailCounts` does."""

    async def look(self) -> list[Metric]:
        """As Prometheus sees it."""
        ...

    async def close(self) -> None:
        """Give up what is being counted."""
        ...


class _These(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


@get(
    "/metrics",
    summary="Metrics for Prometheus",
    operation_id="metrics",
    tags=["Health"],
    media_type=CONTENT_TYPE_LATEST,
    guards=[needs(Scope.METRICS, remembered_seconds=REMEMBERED_SECONDS)],
    security=[{"token": []}],
    responses=ANSWERS_OF_THE_GUARD,
)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The metrics of this process (of all behind its port, where there are several), and the
    emails, files, deliveries, chores and alarms that there are, in Prometheus' text format."""
    states = CollectorRegistry()
    looks: list[Counting] = request.app.state.counts
    found = await asyncio.gather(*(counts.look() for counts in looks))
    states.register(_These([metric for family in found for metric in family]))
    return Response(generate_latest(counted_here()) + generate_latest(states))
