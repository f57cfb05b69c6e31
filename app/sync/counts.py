"""How many emails are not delivered, how far delivery is behind, and how the receiver stands."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.models.delivery import BreakerState
from app.settings import Settings
from app.sync.breaker import read, receiver_name
from app.sync.claims import Database
from app.sync.refusals import Refusal, find_refusal

# By ix_incoming_emails_unsynced alone; a limit of NULL is none. What is due, is in no worker's
# hands and has no job under way, is late, as ix_incoming_emails_deliver has it in its order.
COUNT = """
SELECT (
    SELECT count(*) FROM (
        SELECT FROM incoming_emails WHERE sync_status = 'pending' LIMIT $1
    ) AS counted
) AS pending, (
    SELECT count(*) FROM (
        SELECT FROM incoming_emails WHERE sync_status = 'failed' LIMIT $1
    ) AS counted
) AS failed, (
    SELECT count(*) FROM (
        SELECT FROM sync_events WHERE (sync_status = 'pending') IS TRUE LIMIT $1
    ) AS counted
) AS untold, (
    SELECT count(*) FROM (
        SELECT FROM sync_events WHERE sync_status = 'failed' LIMIT $1
    ) AS counted
) AS never_told, (
    SELECT now() - min(completed_at) FROM incoming_emails WHERE sync_status = 'pending'
) AS pending_age, GREATEST((
    SELECT now() - sync_next_attempt_at FROM incoming_emails
    WHERE (sync_status = 'pending') IS TRUE AND sync_next_attempt_at < now()
        AND (sync_lease_expires_at IS NULL OR sync_lease_expires_at <= now())
        AND (processing_status IN ('completed', 'failed')) IS TRUE
    ORDER BY sync_next_attempt_at LIMIT 1
), (
    SELECT now() - sync_next_attempt_at FROM sync_events
    WHERE (sync_status = 'pending') IS TRUE AND sync_next_attempt_at < now()
        AND (sync_lease_expires_at IS NULL OR sync_lease_expires_at <= now())
    ORDER BY sync_next_attempt_at LIMIT 1
)) AS lag
"""


# By ix_incoming_emails_unsynced, since the condition names a state; the time alone leads into it.
LIST = """
SELECT id, zendesk_ticket_id, subject, processing_status, completed_at, sync_error,
    sync_retry_count, sync_next_attempt_at, sync_lease_expires_at > now() AS is_under_way
FROM incoming_emails
WHERE {condition} AND sync_status IN ('pending', 'failed')
    AND completed_at <= COALESCE({at}::timestamptz, 'infinity')
    AND (completed_at, id) < (COALESCE({at}::timestamptz, 'infinity'), {id})
ORDER BY completed_at DESC, id DESC LIMIT {limit}
"""


@attrs.frozen
class Undelivered:
    """An email that has ended and is not delivered."""

    id: UUID
    ticket_id: str
    subject: str
    status: str
    completed_at: datetime
    error: str | None
    """Of the last try."""
    tries: int
    """Those that failed."""
    next_attempt_at: datetime | None
    is_under_way: bool | None


@attrs.frozen
class Receiver:
    """How the receiver of the settings stands."""

    state: BreakerState
    reason: str | None
    """Why it is open, rests or is paused."""
    is_paused: bool
    """It said that it wants nothing more."""
    rests_until: datetime | None = None
    """It asked for nothing before this moment, which is to come."""

    @property
    def is_well(self) -> bool:
        return not (self.is_down or self.is_paused or self.rests_until)

    @property
    def is_down(self) -> bool:
        return self.state is not BreakerState.CLOSED


@attrs.frozen
class Deliveries:
    """What there is of deliveries."""

    pending: int
    failed: int
    """Given up."""
    untold: int
    """Erasures of which the receiver is to be told."""
    never_told: int
    """Those of which it could not be told."""
    pending_age: timedelta
    """Since the end of the job that waits longest for its delivery."""
    lag: timedelta
    """How long the delivery is due that waits longest for a worker, or for its receiver."""
    receiver: Receiver | None
    """None: nothing is delivered, or was yet."""
    refusal: Refusal | None = None
    """What the receiver says to all that it is sent, though it is well."""


NOTHING = timedelta(0)


def receiver_of(settings: Settings) -> str | None:
    """The name of the receiver; None where nothing is delivered."""
    return receiver_name(settings) if settings.delivers else None


async def count_deliveries(
    database: Database, receiver: str | None, *, at_most: int | None = None
) -> Deliveries:
    """Count what is not delivered, up to `at_most` of each, and see how the receiver stands.

    Args:
        receiver: its name; None: nothing is delivered, and so nothing is late.
    """
    row = await database.fetchrow(COUNT, at_most)
    assert row is not None  # noqa: S101 - a SELECT without FROM
    return Deliveries(
        pending=row["pending"],
        failed=row["failed"],
        untold=row["untold"],
        never_told=row["never_told"],
        pending_age=max(row["pending_age"] or NOTHING, NOTHING),
        lag=NOTHING if receiver is None else row["lag"] or NOTHING,
        receiver=await find_receiver(database, receiver),
        refusal=await find_refusal(database, receiver),
    )


async def list_undelivered(
    database: Database,
    condition: str,
    parameters: Sequence[object],
    *,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[Undelivered]:
    """Emails whose delivery is pending or was given up; those that ended last first, after one.

    Args:
        condition: which of them, in SQL; it names one of the two states.
        parameters: of the condition.
    """
    place = after or (None, UUID(int=2**128 - 1))
    first = len(parameters) + 1
    statement = LIST.format(
        condition=condition, at=f"${first}", id=f"${first + 1}", limit=f"${first + 2}"
    )
    rows = await database.fetch(statement, *parameters, *place, limit)
    return [Undelivered(*row) for row in rows]


async def find_receiver(database: Database, name: str | None) -> Receiver | None:
    """How a receiver stands; None where nothing was delivered to it yet."""
    row = None if name is None else await read(database, name)
    if row is None:
        return None
    is_paused = row["paused_at"] is not None
    reason = row["pause_reason"] if is_paused else row["reason"]
    rests_until = row["rests_until"] if row["is_resting"] else None
    return Receiver(BreakerState(row["state"]), reason, is_paused, rests_until)
