"""`/metrics` of a web process: what it counted, and how many emails are in each state.

The states are read from the database, not more often than it bears: what took a time is left alone
for up to a hundred times as long. So no number of scrapes is a burden on it, and counts of a large
archive are some minutes old.
"""

import asyncio
import math
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import asyncpg
import structlog
from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.database_errors import CANNOT_ASK
from app.desk.tokens import ANSWERS_OF_THE_GUARD, REMEMBERED_SECONDS, needs
from app.models.api_token import Scope
from app.models.incoming_email import ProcessingStatus

log = structlog.get_logger(__name__)

UNFINISHED = (ProcessingStatus.RECEIVED, ProcessingStatus.QUEUED, ProcessingStatus.PROCESSING)
FINISHED = (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)

REST_SECONDS = 5.0
REST_PER_COST = 100.0
# Alerts look at the unfinished ones, so one slow answer must not blind them for long.
LONGEST_REST_UNFINISHED_SECONDS = 30.0
LONGEST_REST_FINISHED_SECONDS = 600.0
GIVE_UP_SECONDS = 30.0
# Prometheus gives up on a scrape after 10 seconds. Then it shows what was counted before.
SCRAPE_WAITS_SECONDS = 2.0

# By ix_incoming_emails_status_received alone. The states are written out, so that the planner
# knows how many rows each has.
SELECT_COUNTS = """
SELECT processing_status, count(*) AS emails,
    GREATEST(EXTRACT(EPOCH FROM now() - min(received_at)), 0)::float8 AS oldest_seconds
FROM incoming_emails
WHERE processing_status IN ({states})
GROUP BY processing_status
"""


class _Counted:
    """The emails in some states, counted now and then."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        states: tuple[ProcessingStatus, ...],
        longest_rest_seconds: float,
    ) -> None:
        self._pool = pool
        self._longest_rest_seconds = longest_rest_seconds
        self._states = states
        self._query = SELECT_COUNTS.format(states=", ".join(f"'{state}'" for state in states))
        self._found: dict[str, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None
        self._due_at = -math.inf

    async def look(self) -> dict[str, tuple[int, float]]:
        """Number and oldest age by state; empty while the database is away."""
        if self._task is None and time.monotonic() >= self._due_at:
            self._task = asyncio.create_task(self._count())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=SCRAPE_WAITS_SECONDS)
        return self._found

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _count(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                rows = await self._pool.fetch(self._query)
        except CANNOT_ASK as error:
            log.warning("emails_not_counted", error=type(error).__name__)
            self._found = {}
        else:
            counted = {
                row["processing_status"]: (row["emails"], row["oldest_seconds"]) for row in rows
            }
            self._found = {state: counted.get(state, (0, 0.0)) for state in self._states}
        finally:
            ended = time.monotonic()
            rest = min(REST_PER_COST * (ended - began), self._longest_rest_seconds)
            self._due_at = ended + max(REST_SECONDS, rest)
            self._task = None


class EmailCounts:
    """How many emails are in each state. The few unfinished ones do not wait for the archive."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._parts = [
            _Counted(pool, UNFINISHED, LONGEST_REST_UNFINISHED_SECONDS),
            _Counted(pool, FINISHED, LONGEST_REST_FINISHED_SECONDS),
        ]

    async def look(self) -> list[Metric]:
        """As Prometheus sees them. A state that could not be counted is missing."""
        emails = GaugeMetricFamily("mailroom_emails", "Emails in a state.", labels=["state"])
        oldest = GaugeMetricFamily(
            "mailroom_oldest_email_age_seconds",
            "Time since the oldest email in a state was received; 0 where there is none.",
            labels=["state"],
        )
        for found in await asyncio.gather(*(part.look() for part in self._parts)):
            for state, (count, age) in found.items():
                emails.add_metric([state], count)
                oldest.add_metric([state], age)
        return [emails, oldest]

    async def close(self) -> None:
        """Give up what is being counted."""
        for part in self._parts:
            await part.close()


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
    """The metrics of this process and the emails in each state, in Prometheus' text format."""
    states = CollectorRegistry()
    states.register(_These(await request.app.state.email_counts.look()))
    return Response(generate_latest(_counted_here()) + generate_latest(states))


def _counted_here() -> CollectorRegistry:
    # prometheus-client's own switch, for a server that runs several processes behind one port.
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
