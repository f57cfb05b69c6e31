"""Calls off deliveries that wait where nothing is delivered any more, so that they hold back no
retention. What may have reached the receiver stays known: it is to be told of the erasure of such
an email.
"""

from collections.abc import AsyncGenerator
from datetime import datetime

import attrs

from app.models.email_event import EmailEventKind, events_of
from app.sync.claims import Database
from app.sync.reconciling import BATCH, BEFORE_ALL, STRETCH

# By ix_incoming_emails_unsynced, and not over what was called off already.
FIND = """
SELECT id, completed_at FROM incoming_emails
WHERE sync_status = 'pending' AND completed_at >= COALESCE($1::timestamptz, '-infinity')
    AND (completed_at, id) > (COALESCE($1::timestamptz, '-infinity'), $2)
    AND processing_status IN ('completed', 'failed')
    AND (sync_lease_expires_at > now()) IS NOT TRUE
ORDER BY completed_at, id
LIMIT $3
"""
# By the ids: as plain comparisons the states would invite the planner to go by those. Whoever did
# not hear how a try ended cannot tell whether it arrived.
CANCEL = f"""
WITH free AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE id = ANY (ARRAY(SELECT unnest($1::uuid[])))
        AND (sync_status = 'pending' AND processing_status IN ('completed', 'failed')) IS TRUE
        AND (sync_lease_expires_at > now()) IS NOT TRUE
    ORDER BY id
    FOR UPDATE SKIP LOCKED
),
cancelled AS (
    UPDATE incoming_emails AS email
    SET sync_status = 'not_applicable', sync_next_attempt_at = NULL,
        sync_retry_count = CASE WHEN sync_token IS NULL THEN sync_retry_count
            ELSE GREATEST(sync_retry_count, 1) END
    WHERE email.id = ANY (ARRAY(SELECT id FROM free))
    RETURNING email.id
),
history AS ({
    events_of(
        "cancelled",
        EmailEventKind.DELIVERY,
        "'called off, since nothing is delivered any more'",
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
    since: datetime | None = None
    after = BEFORE_ALL
    while True:
        stretch = await database.fetch(FIND, since, after, STRETCH)
        cancelled = 0
        if applies:
            ids = [row["id"] for row in stretch]
            for start in range(0, len(ids), BATCH):
                cancelled += await database.fetchval(CANCEL, ids[start : start + BATCH], by)
        yield Step(len(stretch), cancelled)
        if len(stretch) < STRETCH:
            return
        since, after = stretch[-1]["completed_at"], stretch[-1]["id"]
