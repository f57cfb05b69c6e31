"""The claims that this process holds, and keeping them alive.

A lease is extended from the keeper's thread, so an email stays its worker's even while a handler
blocks the event loop. A handler that blocks it beyond its time limit cannot be cancelled: then the
process gives up its claims and ends, and its supervisor starts a new one.
"""

import asyncio
import sys
import threading
import time
import traceback
from datetime import timedelta

import attrs
import structlog

from app.jobs import transitions
from app.jobs.transitions import Claim, Database

log = structlog.get_logger(__name__)

BEATS_PER_LEASE = 4


@attrs.frozen(eq=False)
class Held:
    """A claim whose handler runs here, or whose end is being recorded."""

    claim: Claim
    task: "asyncio.Task[object]"
    gives_up_at: float
    """On the monotonic clock: when even a cancelled handler must have ended."""


class HeldClaims:
    """Which claims this process holds. Written by the event loop, read by the keeper's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[Held] = set()
        self._given_up: set[Held] = set()

    def add(self, held: Held) -> None:
        with self._lock:
            self._held.add(held)

    def remove(self, held: Held) -> None:
        with self._lock:
            self._held.discard(held)
            self._given_up.discard(held)

    def give_up(self, held: Held) -> None:
        """Cancel its handler: the claim is lost, or has to be handed back."""
        with self._lock:
            self._given_up.add(held)
        held.task.get_loop().call_soon_threadsafe(held.task.cancel)

    def is_given_up(self, held: Held) -> bool:
        with self._lock:
            return held in self._given_up

    def all(self) -> list[Held]:
        with self._lock:
            return list(self._held)


async def extend_once(database: Database, held_claims: HeldClaims, lease: timedelta) -> None:
    """Extend every lease of this process; cancel handlers whose claim another worker has now."""
    held = held_claims.all()
    if not held:
        return
    standing = await transitions.extend_leases(database, [h.claim for h in held], lease=lease)
    still_held = set(held_claims.all())
    for h in held:
        if (h.claim.email_id, h.claim.started_at) not in standing and h in still_held:
            log.warning("claim_lost", email_id=str(h.claim.email_id))
            held_claims.give_up(h)


def find_blocker(loop: asyncio.AbstractEventLoop, held: list[Held]) -> Held | None:
    """The handler that keeps the event loop from running, if one is over its time."""
    now = time.monotonic()
    overdue = [h for h in held if h.gives_up_at < now and not h.task.done()]
    if not overdue:
        return None
    current = asyncio.current_task(loop)
    return next((h for h in held if h.task is current), overdue[0])


def where_blocked(thread_id: int | None) -> str:
    """The innermost line that a thread is at, for the error that is kept with the email."""
    frame = sys._current_frames().get(thread_id or 0)
    if frame is None:
        return "an unknown place"
    line = traceback.extract_stack(frame)[-1]
    return f"{line.name} ({line.filename.rsplit('/', 1)[-1]}:{line.lineno})"
