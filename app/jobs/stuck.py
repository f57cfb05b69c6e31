"""Which emails are older in their state than they can be while workers run."""

from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.jobs.transitions.common import Database
from app.jobs.transitions.keeping import MESSAGE_LOST
from app.models.entries import ENTRIES, moment_of
from app.models.incoming_email import ProcessingStatus
from app.settings import Settings

# Older than anything should be in its state while the workers run. What is `queued` counts from the
# moment at which a worker could have had it. Sending a message again or postponing a suspect does
# not renew that: both go on for as long as no worker comes. What is `processing` should have ended
# with its lease, and with the handler's time even if the lease is extended for ever.
SELECT_STUCK = f"""
SELECT id, processing_status, since, now() - since AS age
FROM (
    SELECT id, processing_status,
        CASE processing_status
            WHEN 'received' THEN created_at
            WHEN 'queued' THEN GREATEST(
                created_at, started_at,
                CASE WHEN lost_claims = 0 THEN next_attempt_at END,
                (
                    SELECT max(GREATEST(
                        {moment_of("entry", "at")}, {moment_of("entry", "next_attempt_at")}
                    ))
                    FROM jsonb_array_elements({ENTRIES}) AS entry
                    WHERE entry ->> 'error' <> '{MESSAGE_LOST}'
                )
            )
            ELSE COALESCE(LEAST(lease_expires_at, started_at + $3::interval), created_at)
        END AS since
    FROM incoming_emails
    WHERE processing_status IN ('received', 'queued', 'processing')
) AS unfinished
WHERE since < now() - $1::interval
ORDER BY since
LIMIT $2
"""  # noqa: S608 - a constant


@attrs.frozen
class Stuck:
    """An email that is older in its state than expected."""

    id: UUID
    status: ProcessingStatus
    since: datetime
    age: timedelta


async def find_stuck(database: Database, settings: Settings, *, limit: int) -> list[Stuck]:
    """Emails that are older in their state than they can be while workers run; the oldest first."""
    patience = timedelta(seconds=2 * max(settings.message_lost_seconds, settings.lease_seconds))
    longest_run = timedelta(seconds=settings.handler_timeout_seconds)
    rows = await database.fetch(SELECT_STUCK, patience, limit, longest_run)
    return [
        Stuck(row["id"], ProcessingStatus(row["processing_status"]), row["since"], row["age"])
        for row in rows
    ]
