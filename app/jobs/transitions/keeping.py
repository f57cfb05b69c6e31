"""Claims kept alive, and what got stuck brought back to `queued`."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.jobs.transitions.common import (
    HELD,
    VANISHED,
    WITH_MESSAGE,
    Claim,
    Database,
    in_state_since,
)
from app.models.entries import noted
from app.telemetry.metrics import RESCUES, RescueKind

MESSAGE_LOST = "its message was lost"

# One row that somebody has locked must not keep the others from being extended: it stands, and is
# tried again the next time.
EXTEND_LEASES = f"""
WITH held AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS held (id, started_at)
),
free AS MATERIALIZED (
    SELECT email.id FROM incoming_emails AS email JOIN held USING (id, started_at)
    WHERE email.id = ANY (ARRAY(SELECT id FROM held)) AND {HELD}
    ORDER BY email.id
    FOR UPDATE OF email SKIP LOCKED
),
extended AS (
    UPDATE incoming_emails AS email SET lease_expires_at = clock_timestamp() + $3
    WHERE email.id = ANY (ARRAY(SELECT id FROM free))
    RETURNING email.id, email.started_at
)
SELECT id, started_at, true AS is_extended FROM extended
UNION ALL
SELECT email.id, email.started_at, false
FROM incoming_emails AS email JOIN held USING (id, started_at)
WHERE email.id = ANY (ARRAY(SELECT id FROM held EXCEPT SELECT id FROM extended)) AND {HELD}
"""  # noqa: S608 - a constant


@attrs.frozen
class Stretch:
    """From where to look, past the dead entries of what went through; None: from the beginning.
    What came later with an older time is not found so."""

    received_at: datetime | None = None
    """For what is in work."""

    queued_at: datetime | None = None
    """For what has a message."""


ALL = Stretch()
IN_WORK_SINCE = in_state_since("processing", "COALESCE($2::timestamptz, '-infinity')")
MESSAGES_SINCE = f"{WITH_MESSAGE} AND queued_at >= COALESCE($1::timestamptz, '-infinity')"

RESCUE_EXPIRED = f"""
WITH taken AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE COALESCE(lease_expires_at, '-infinity') < now() AND {IN_WORK_SINCE}
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, lease_expires_at = NULL, updated_at = now(),
    lost_claims = lost_claims + 1, attempt_errors = {VANISHED}
WHERE id = ANY (ARRAY(SELECT id FROM taken))
RETURNING id
"""  # noqa: S608 - a constant

# Messages that are lost one after the other, as where no worker listens, are told once: the row
# must not grow for as long as that lasts.
RESCUE_UNHEARD = f"""
WITH taken AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE {WITH_MESSAGE} AND queued_at >= COALESCE($4::timestamptz, '-infinity')
    AND queued_at < now() - $3::interval
    AND ($5 OR queued_at < (
        SELECT max(queued_at) FROM incoming_emails
        WHERE processing_status = 'processing'
            AND received_at >= COALESCE($2::timestamptz, '-infinity')
    ))
    ORDER BY queued_at, received_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails
SET queued_at = NULL, updated_at = now(),
    attempt_errors = CASE WHEN attempt_errors -> -1 ->> 'error' = '{MESSAGE_LOST}'
        THEN attempt_errors
        ELSE {noted(f"'{MESSAGE_LOST}'")}
        END
WHERE id = ANY (ARRAY(SELECT id FROM taken))
RETURNING id
"""  # noqa: S608 - a constant

# Where the queues begin now; from now on where there is none.
BEGINNINGS = f"""
SELECT COALESCE(
    (SELECT received_at FROM incoming_emails WHERE {IN_WORK_SINCE} LIMIT 1), now()
) AS received_at, COALESCE(
    (SELECT queued_at FROM incoming_emails WHERE {MESSAGES_SINCE} ORDER BY queued_at LIMIT 1), now()
) AS queued_at
"""  # noqa: S608 - a constant


async def extend_leases(
    database: Database, claims: Collection[Claim], *, lease: timedelta
) -> dict[tuple[UUID, datetime], bool]:
    """Keep claims alive.

    Returns:
        Id and token of each claim that still stands, and whether its lease was extended: not where
        another transaction has locked the email.
    """
    rows = await database.fetch(
        EXTEND_LEASES, [c.email_id for c in claims], [c.started_at for c in claims], lease
    )
    return {(row["id"], row["started_at"]): row["is_extended"] for row in rows}


async def beginnings(database: Database, since: Stretch = ALL) -> Stretch:
    """Where what is in work begins now, and what has a message, as far as it is looked for."""
    row = await database.fetchrow(BEGINNINGS, since.queued_at, since.received_at)
    return Stretch(row["received_at"], row["queued_at"]) if row else ALL


async def rescue_expired(database: Database, *, limit: int, since: Stretch = ALL) -> list[UUID]:
    """processing -> queued where the lease ran out: the worker vanished."""
    rows = await database.fetch(RESCUE_EXPIRED, limit, since.received_at)
    RESCUES.labels(RescueKind.LEASE).inc(len(rows))
    return [row["id"] for row in rows]


async def rescue_unheard(
    database: Database, *, limit: int, lost_after: timedelta, is_idle: bool, since: Stretch = ALL
) -> list[UUID]:
    """queued -> queued where no worker came for so long that the message must be lost.

    Args:
        is_idle: a worker has nothing to do. Without one an old message may simply be waiting; it
            is lost if emails that were queued after it are in work already.
    """
    rows = await database.fetch(
        RESCUE_UNHEARD, limit, since.received_at, lost_after, since.queued_at, is_idle
    )
    RESCUES.labels(RescueKind.MESSAGE).inc(len(rows))
    return [row["id"] for row in rows]
