"""The claims that this process holds, keeping them alive, and letting go of them in time.

A lease is extended from the keeper's thread, so an email stays its worker's even while a handler
blocks the event loop. What could not be extended is cancelled before the lease ends, by a clock
that nobody sets, so that the next worker's handler does not run beside it. A handler that cannot be
cancelled, because it blocks the event loop, ends with its process.
"""

import asyncio
import sys
import threading
import time
import traceback
from datetime import timedelta
from typing import Any

import attrs
import structlog

from app.jobs.transitions import keeping
from app.jobs.transitions.common import Claim, Database
from app.lease_clock import lease_time

log = structlog.get_logger(__name__)

BEATS_PER_LEASE = 4
# Fractions of a lease: how long before its end a handler is cancelled, and what it gets then for
# its clean-up before its process is ended.
CANCEL_BEFORE_END = 0.2
CLEAN_UP = 0.1
# A pause before the database is asked again, so that whoever lives extends its leases before others
# may take over what it holds.
LONGEST_PAUSE_OF_LEASE = 0.125
# Between two answers of the database there may be so much; a longer silence is an interruption.
LONGEST_GAP = 0.5

LEASE_NOT_EXTENDED = "handed back: its worker could not reach the database to extend its lease"


@attrs.define(eq=False)
class Held:
    """A claim whose handler runs here, or whose end is being recorded."""

    claim: Claim
    task: "asyncio.Future[Any]"
    """Its handler, or what stands in its place until that begins."""
    gives_up_at: float
    """When even a cancelled handler must have ended, by the monotonic clock, as all of its time."""
    lease_ends_at: float
    """At the earliest: counted from before the database was asked, by the clock of leases."""
    given_up_at: float | None = None
    """By the clock of leases."""
    reason: str | None = None
    """Why it was given up, for whoever reads the email's story."""


@attrs.define
class Contact:
    """Since when this process reaches the database without an interruption.

    Who was cut off does not know whether the workers whose leases ran out have vanished, or were
    cut off as well and extend them in a moment. Written by the keeper's thread, read by all.
    """

    since: float | None = None
    last: float = 0.0

    def answered(self, asked_at: float, lease: timedelta) -> None:
        """The database answered what it was asked at a moment of the clock of leases."""
        if self.since is None or asked_at - self.last > LONGEST_GAP * lease.total_seconds():
            self.since = asked_at
        self.last = max(asked_at, self.last)

    def broke(self) -> None:
        """It did not answer."""
        self.since = None

    def has_lasted(self, lease: timedelta) -> bool:
        """Whether whoever lives had a lease's time to extend what it holds."""
        since, now = self.since, lease_time()
        seconds = lease.total_seconds()
        return (
            since is not None and now - since > seconds and now - self.last < LONGEST_GAP * seconds
        )


class HeldClaims:
    """Which claims this process holds. Written by the event loop, read by the keeper's thread."""

    def __init__(self) -> None:
        self.contact = Contact()
        self.changes = 0
        """How often one was made or ended."""
        self._lock = threading.Lock()
        self._held: set[Held] = set()

    def add(self, held: Held) -> None:
        with self._lock:
            self._held.add(held)
            self.changes += 1

    def remove(self, held: Held) -> None:
        with self._lock:
            self._held.discard(held)
            self.changes += 1

    def give_up(self, held: Held, reason: str | None = None) -> None:
        """Cancel its handler: the claim is lost, or has to be handed back."""
        held.reason = held.reason or reason
        held.given_up_at = held.given_up_at or lease_time()
        held.task.get_loop().call_soon_threadsafe(held.task.cancel)

    def all(self) -> list[Held]:
        with self._lock:
            return list(self._held)


async def extend_once(database: Database, held_claims: HeldClaims, lease: timedelta) -> None:
    """Extend every lease of this process; cancel handlers whose claim another worker has now.

    Raises:
        Exception: the database is away.
    """
    held = held_claims.all()
    asked_at = lease_time()
    try:
        # Where nothing is held, the answer tells that the database is there.
        standing = await keeping.extend_leases(database, [h.claim for h in held], lease=lease)
    except BaseException:
        held_claims.contact.broke()
        raise
    held_claims.contact.answered(asked_at, lease)
    still_held = set(held_claims.all())
    for h in held:
        is_extended = standing.get((h.claim.email_id, h.claim.started_at))
        if is_extended:
            h.lease_ends_at = asked_at + lease.total_seconds()
        elif is_extended is None and h in still_held and h.given_up_at is None:
            log.warning("claim_lost", email_id=str(h.claim.email_id))
            held_claims.give_up(h)


def is_ending(lease_ends_at: float, lease: timedelta) -> bool:
    """Whether a handler may not run any longer under a lease that ends then."""
    return lease_ends_at - lease_time() < CANCEL_BEFORE_END * lease.total_seconds()


def fence(held_claims: HeldClaims, lease: timedelta) -> Held | None:
    """Cancel each handler whose lease is about to end.

    Returns:
        A handler that runs on although it was cancelled: its process has to end.
    """
    for h in held_claims.all():
        if h.task.done() or not is_ending(h.lease_ends_at, lease):
            continue
        if h.given_up_at is None:
            log.warning("lease_not_extended", email_id=str(h.claim.email_id))
            held_claims.give_up(h, LEASE_NOT_EXTENDED)
        elif lease_time() - h.given_up_at > CLEAN_UP * lease.total_seconds():
            return h
    return None


def overdue(held: list[Held]) -> list[Held]:
    """The handlers that are over their time and that of their clean-up."""
    now = time.monotonic()
    return [h for h in held if h.gives_up_at < now and not h.task.done()]


def find_blocker(loop: asyncio.AbstractEventLoop, held: list[Held]) -> Held | None:
    """The handler that keeps the event loop from running, where it does not run."""
    current = asyncio.current_task(loop)
    return next((h for h in held if h.task is current), None)


async def freeze(loop: asyncio.AbstractEventLoop, seconds: float) -> bool:
    """Let nothing more run in the event loop of another thread, whose process is about to end.

    Returns:
        Whether it ran until now: not where a handler blocks it.
    """
    here, frozen = asyncio.get_running_loop(), asyncio.Event()

    def stand_still() -> None:
        here.call_soon_threadsafe(frozen.set)
        threading.Event().wait()

    loop.call_soon_threadsafe(stand_still)
    try:
        async with asyncio.timeout(seconds):
            await frozen.wait()
    except TimeoutError:
        return False
    return True


def where_blocked(thread_id: int | None) -> str:
    """The innermost line that a thread is at, for the error that is kept with the email."""
    frame = sys._current_frames().get(thread_id or 0)
    if frame is None:
        return "an unknown place"
    line = traceback.extract_stack(frame)[-1]
    return f"{line.name} ({line.filename.rsplit('/', 1)[-1]}:{line.lineno})"
