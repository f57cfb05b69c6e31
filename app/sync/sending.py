"""What is sent together, and for how long it may be sent: never beyond its lease."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import structlog

from app.sync.answers import Verdict, unreached
from app.sync.claims import Claimed
from app.sync.event import Event, EventMaker
from app.sync.limits import Limits
from app.telemetry.metrics import DELIVERY_FAILURES, DELIVERY_SECONDS

log = structlog.get_logger(__name__)

# Among many a single one that is refused would hold up the others for ever.
TRIES_TOGETHER = 2
# Nothing is sent any longer when the lease is over: others have it then, or it is erased and the
# receiver is told so.
LAST_SHARE_OF_LEASE = 0.9


class Delivers(Protocol):
    """What sends events: `HttpReceiver` or `FunctionReceiver`."""

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        """Send these together, and say what became of it."""
        ...


def batches_of(
    claimed: Sequence[Claimed], maker: EventMaker, limits: Limits
) -> list[list[Claimed]]:
    """What is sent together. What was refused among others is sent alone, in its last try at the
    latest."""
    tries_together = max(1, min(TRIES_TOGETHER, len(limits.pauses) - 1))
    alone = [[one] for one in claimed if one.failed_tries >= tries_together]
    together = [one for one in claimed if one.failed_tries < tries_together]
    together.sort(key=lambda one: (one.source, one.id))
    if limits.batch == 1:
        return alone + [[one] for one in together]
    batches: list[list[Claimed]] = []
    left = 0
    for one in together:
        # With the comma before it.
        size = maker.size(maker.make(one)) + 1
        if not batches or len(batches[-1]) == limits.batch or size > left:
            batches.append([])
            left = limits.batch_bytes
        batches[-1].append(one)
        left -= size
    return alone + batches


def lease_ends(lease: timedelta) -> float:
    """Until when what is claimed or extended now may be sent, by the clock of the loop."""
    return asyncio.get_running_loop().time() + lease.total_seconds() * LAST_SHARE_OF_LEASE


class Sender:
    """Sends for the tasks of one deliverer."""

    def __init__(self, receiver: Delivers) -> None:
        self._receiver = receiver
        self._until: dict[asyncio.Task[None], asyncio.Timeout] = {}

    async def send(
        self, events: Sequence[Event], task: "asyncio.Task[None]", until: float
    ) -> Verdict:
        """Send these together.

        Args:
            task: the one that calls.

        Raises:
            TimeoutError: the lease is over; the receiver may have got them.
        """
        try:
            async with asyncio.timeout_at(until) as timeout:
                self._until[task] = timeout
                return await self._send(events)
        finally:
            self._until.pop(task, None)

    def is_sending(self, task: "asyncio.Task[None]") -> bool:
        """Whether a task waits for an answer."""
        return task in self._until

    def extend(self, task: "asyncio.Task[None]", until: float) -> None:
        """What a task sends may be sent for longer."""
        timeout = self._until.get(task)
        if timeout is not None and not timeout.expired():
            timeout.reschedule(until)

    async def _send(self, events: Sequence[Event]) -> Verdict:
        began = time.monotonic()
        try:
            verdict = await self._receiver.deliver(events)
        except Exception as error:
            log.error("delivery_failed", exc_info=error)
            verdict = unreached(type(error).__name__)
        DELIVERY_SECONDS.observe(time.monotonic() - began)
        if verdict.kind is not None:
            DELIVERY_FAILURES.labels(verdict.kind).inc()
        return verdict
