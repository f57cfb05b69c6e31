"""Deliveries in `/metrics`: what is not delivered, how late it is, how the receiver stands."""

import asyncpg
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from app.api.look import Look, look_for_scrapes
from app.models.delivery import BreakerState
from app.settings import Settings
from app.sync.counts import Deliveries, count_deliveries, receiver_of

PAUSED = "paused"
"""The state of a receiver that wants nothing more, whatever its breaker says."""
RESTING = "resting"
"""The state of one that is there, and asked to be left alone for a while."""


class DeliveryCounts:
    """Looks at the deliveries, no oftener than the database bears."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: Settings) -> None:
        async def count() -> list[Deliveries]:
            return [await count_deliveries(pool, receiver_of(settings))]

        self._look: Look[list[Deliveries]] = look_for_scrapes(count, nothing=[], what="deliveries")

    async def look(self) -> list[Metric]:
        """As Prometheus sees them. What could not be counted is missing."""
        emails = GaugeMetricFamily(
            "mailroom_undelivered_emails",
            "Emails that are to be delivered, or whose delivery was given up.",
            labels=["state"],
        )
        events = GaugeMetricFamily(
            "mailroom_undelivered_events",
            "Erasures that the receiver is to be told of, or could not be told of.",
            labels=["state"],
        )
        age = GaugeMetricFamily(
            "mailroom_delivery_pending_age_seconds",
            "Since the end of the job that waits longest for its delivery; 0 where none does.",
        )
        lag = GaugeMetricFamily(
            "mailroom_delivery_lag_seconds",
            "How long the delivery is due that waits longest to be tried; 0 where none does.",
        )
        receiver = GaugeMetricFamily(
            "mailroom_receiver_state",
            "1 for how the receiver stands; all 0 where nothing was delivered yet.",
            labels=["state"],
        )
        for found in await self._look.see():
            emails.add_metric(["pending"], found.pending)
            emails.add_metric(["failed"], found.failed)
            events.add_metric(["pending"], found.untold)
            events.add_metric(["failed"], found.never_told)
            age.add_metric([], found.pending_age.total_seconds())
            lag.add_metric([], found.lag.total_seconds())
            stands = _state(found)
            for state in (*BreakerState, PAUSED, RESTING):
                receiver.add_metric([state], int(state == stands))
        return [emails, events, age, lag, receiver]

    async def close(self) -> None:
        """Give up what is being counted."""
        await self._look.close()


def _state(found: Deliveries) -> str | None:
    receiver = found.receiver
    if receiver is None:
        return None
    if receiver.is_paused:
        return PAUSED
    return RESTING if receiver.rests_until and not receiver.is_down else receiver.state
