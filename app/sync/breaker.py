"""How the receiver stands: its breaker, which is one row for the workers of all machines.

After many failures in a row the receiver counts as down. Then nobody delivers, except one probe at
a time in the whole system, until one succeeds: closed -> open -> half_open -> closed | open. A
receiver that asks for a rest gets it, and one that wants nothing more (410) is left alone until an
operator resumes.
"""

import hashlib
import time
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import attrs
import structlog

from app.settings import Settings
from app.sync.claims import Database
from app.sync.schedule import probe_pause

log = structlog.get_logger(__name__)

LONGEST_REASON = 1_000

MAKE = "INSERT INTO sync_receivers (name) VALUES ($1) ON CONFLICT DO NOTHING"
READ = """
SELECT *, rests_until > now() AS is_resting, GREATEST(probe_at, rests_until) AS probed_from
FROM sync_receivers WHERE name = $1
"""

# Each names what it may change, so that while all is well nothing is written.
SUCCEED = """
UPDATE sync_receivers
SET state = 'closed', failures = 0, opened_at = NULL, probes = 0, probe_at = NULL,
    probe_token = NULL, updated_at = now()
WHERE name = $1 AND (state <> 'closed' OR failures > 0)
RETURNING opened_at IS NULL AS is_closed
"""
FAIL = """
UPDATE sync_receivers
SET failures = failures + $2, reason = $3, updated_at = now(),
    state = CASE WHEN failures + $2 >= $4 THEN 'open' ELSE state END,
    opened_at = CASE WHEN failures + $2 >= $4 THEN now() END,
    probe_at = CASE WHEN failures + $2 >= $4 THEN now() + $5::interval END,
    probes = 0
WHERE name = $1 AND state = 'closed'
RETURNING state
"""
# A probe whose process vanished counts as lost by `probe_at`.
BEGIN_PROBE = """
UPDATE sync_receivers
SET state = 'half_open', probe_token = $2, probe_at = now() + $3, updated_at = now()
WHERE name = $1 AND state <> 'closed' AND probe_at <= now() AND paused_at IS NULL
    AND COALESCE(rests_until, '-infinity') <= now()
RETURNING probes
"""
# The pause grows with each probe that failed; where there was nothing to deliver, it does not.
FAIL_PROBE = """
UPDATE sync_receivers
SET state = 'open', probe_token = NULL, probe_at = now() + $3, updated_at = now(),
    probes = probes + ($4::text IS NOT NULL)::int, reason = COALESCE($4, reason)
WHERE name = $1 AND probe_token = $2
"""
REST = """
UPDATE sync_receivers SET rests_until = now() + $2, reason = $3, updated_at = now()
WHERE name = $1 AND COALESCE(rests_until, '-infinity') < now() + $2
"""
PAUSE = """
UPDATE sync_receivers SET paused_at = now(), pause_reason = $2, updated_at = now()
WHERE name = $1 AND paused_at IS NULL
"""
RESUME = """
UPDATE sync_receivers
SET paused_at = NULL, pause_reason = NULL, rests_until = NULL, state = 'closed', failures = 0,
    opened_at = NULL, probes = 0, probe_at = NULL, probe_token = NULL, updated_at = now()
WHERE name = $1
"""


@attrs.frozen
class Probe:
    """The right to make the one probe there is, until it counts as lost."""

    token: UUID
    failed_before: int


def receiver_name(settings: Settings) -> str:
    """The receiver's name in `sync_receivers`: its host and a hash, since a URL may hold a secret;
    or the function. Another receiver begins with a breaker of its own."""
    if settings.sync:
        return settings.sync[:300]
    told_apart = hashlib.sha256(settings.sync_url.encode()).hexdigest()[:8]
    return f"{settings.sync_origin.host[:255]} {told_apart}"


class Breaker:
    """Reads and writes the row of one receiver."""

    def __init__(
        self, database: Database, name: str, *, failures: int, first_pause_seconds: float
    ) -> None:
        self._database = database
        self.name = name
        self._failures = failures
        self._first_pause_seconds = first_pause_seconds
        self.found_open_at = 0.0
        """When this process last found it open, by the monotonic clock."""

    async def make(self) -> None:
        """See that its row is there."""
        await self._database.execute(MAKE, self.name)

    async def succeed(self) -> None:
        """Something was delivered, or the receiver is there to refuse it: open -> closed."""
        if await self._database.fetchrow(SUCCEED, self.name):
            log.info("receiver_answers", receiver=self.name)

    async def fail(self, times: int, reason: str) -> bool:
        """So many deliveries failed and none succeeded: closed -> open where it is too many.

        Returns:
            Whether it was closed: what fails while it is open is no try of an email.
        """
        row = await self._database.fetchrow(
            FAIL,
            self.name,
            times,
            reason[:LONGEST_REASON],
            self._failures,
            probe_pause(self._first_pause_seconds, 0),
        )
        if row is None or row["state"] == "open":
            self.found_open_at = time.monotonic()
        if row is not None and row["state"] == "open":
            log.warning("receiver_down", receiver=self.name)
        return row is not None

    async def begin_probe(self, *, lost_after: timedelta) -> Probe | None:
        """open -> half_open, for one process of all. None: it is not the time, or another does."""
        token = uuid4()
        row = await self._database.fetchrow(BEGIN_PROBE, self.name, token, lost_after)
        return None if row is None else Probe(token, row["probes"])

    async def fail_probe(self, probe: Probe, reason: str | None) -> None:
        """half_open -> open.

        Args:
            reason: why it failed; None: there was nothing to be delivered.
        """
        failed = probe.failed_before + (reason is not None)
        await self._database.execute(
            FAIL_PROBE,
            self.name,
            probe.token,
            probe_pause(self._first_pause_seconds, failed),
            reason and reason[:LONGEST_REASON],
        )

    async def rest(self, pause: timedelta, reason: str) -> None:
        """Let nobody deliver for so long."""
        await self._database.execute(REST, self.name, pause, reason[:LONGEST_REASON])

    async def pause(self, reason: str) -> None:
        """Let nobody deliver until an operator resumes."""
        if await self._database.execute(PAUSE, self.name, reason[:LONGEST_REASON]) == "UPDATE 1":
            log.error("delivery_paused", receiver=self.name, mend="mailroom sync resume")


async def resume(database: Database, name: str) -> bool:
    """Deliver again, whatever the receiver did before; for operators.

    Returns:
        Whether it is known.
    """
    return str(await database.execute(RESUME, name)) == "UPDATE 1"


async def read(database: Database, name: str) -> dict[str, Any] | None:
    """The row of a receiver; None where nothing was ever delivered to it."""
    row = await database.fetchrow(READ, name)
    return None if row is None else dict(row)
