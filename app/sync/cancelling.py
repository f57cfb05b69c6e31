"""Calls off deliveries that wait where nothing is delivered any more, so that they hold back no
retention. What its receiver was told of stays known: erasing such an email still tells it.
"""

from collections.abc import AsyncGenerator
from datetime import timedelta

import attrs

from app.models.email_event import EmailEventKind, events_of
from app.models.incoming_email import ProcessingStatus
from app.sync.differences import Database, Difference, Place, Which, find
from app.sync.reconciling import BATCH, BEFORE_ALL, STRETCH

ENDS = (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)
WHATEVER_WAITS = Which(overdue_after=timedelta(0))

# The token of a worker that vanished stays: an answer that it had meanwhile may still be recorded,
# and whoever erases the email takes it for told.
CANCEL = f"""
WITH free AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE id = ANY ($1::uuid[]) AND processing_status IN ('completed', 'failed')
        AND sync_status = 'pending' AND (sync_lease_expires_at > now()) IS NOT TRUE
    ORDER BY id
    FOR UPDATE SKIP LOCKED
),
cancelled AS (
    UPDATE incoming_emails AS email
    SET sync_status = 'not_applicable', sync_next_attempt_at = NULL
    WHERE email.id = ANY (ARRAY(SELECT id FROM free))
    RETURNING email.id
),
history AS ({
    events_of(
        "cancelled",
        EmailEventKind.DELIVERY,
        "'called off: nothing is delivered any more'",
        who="$2",
    )
})
SELECT count(*) FROM cancelled
"""  # noqa: S608 - a constant


@attrs.frozen
class Step:
    """What one stretch brought."""

    found: int
    """Deliveries that wait and are not under way."""
    cancelled: int


async def cancel(database: Database, *, applies: bool, by: str) -> AsyncGenerator[Step, None]:
    """pending -> not_applicable, stretch by stretch, of all emails whose jobs have ended; not of
    what is sent right now.

    Args:
        applies: call them off; else they are only counted.
        by: whose wish it is; stands in the story.
    """
    for status in ENDS:
        place = Place(status, None, BEFORE_ALL)
        while True:
            stretch = await find(
                database, WHATEVER_WAITS, place, limit=STRETCH, unsynced_alone=True
            )
            waiting = [one.id for one in stretch if one.difference == Difference.OVERDUE]
            cancelled = 0
            if applies:
                for start in range(0, len(waiting), BATCH):
                    cancelled += await database.fetchval(CANCEL, waiting[start : start + BATCH], by)
            yield Step(len(waiting), cancelled)
            if len(stretch) < STRETCH:
                break
            place = Place(status, stretch[-1].completed_at, stretch[-1].id)
