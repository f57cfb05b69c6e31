"""Whether the receiver refuses all that it is sent, though it is there. Its breaker is closed then,
since that one email is refused says nothing of others, and each is tried again for days."""

import textwrap

import attrs

from app.sync.claims import Database

# All is bounded. What is pending is read by ix_incoming_emails_unsynced, and nothing of it was
# refused where all is well; only else ix_incoming_emails_finished is asked whether anything was
# delivered since. An email that ended after the last delivery and was tried, was tried after it.
# A failure that counts against the receiver is no refusal, and its row says when the last one was
# made good, by an operator too, or when that receiver was named.
FIND = """
WITH refused AS MATERIALIZED (
    SELECT completed_at, sync_error FROM (
        SELECT completed_at, sync_error, sync_retry_count FROM incoming_emails
        WHERE sync_status = 'pending' AND completed_at <= 'infinity'
        ORDER BY completed_at DESC LIMIT $2
    ) AS latest
    WHERE sync_retry_count > 0 AND sync_error IS NOT NULL
    ORDER BY completed_at DESC LIMIT 1
)
SELECT sync_error AS reason FROM refused
WHERE EXISTS (
    SELECT FROM sync_receivers
    WHERE name = $1 AND state = 'closed' AND failures = 0 AND paused_at IS NULL
        AND updated_at <= refused.completed_at
        AND COALESCE(rests_until, '-infinity') <= now()
) AND NOT EXISTS (
    SELECT FROM unnest(ARRAY['completed', 'failed']) AS ended (state) CROSS JOIN LATERAL (
        SELECT synced_at FROM incoming_emails
        WHERE processing_status = ended.state AND completed_at <= 'infinity'
        ORDER BY completed_at DESC LIMIT $2
    ) AS latest
    WHERE synced_at >= refused.completed_at
)
"""

MOST_READ = 1_000
# It may be the page of a sign-in.
LONGEST_REASON = 300


@attrs.frozen
class Refusal:
    """What was sent last was refused, and nothing was delivered since."""

    reason: str
    """Why, of the email that ended last, in one line; what the receiver said may quote it."""


async def find_refusal(database: Database, receiver: str | None) -> Refusal | None:
    """Whether a receiver refuses what it is sent.

    Args:
        receiver: its name; None: nothing is delivered, so nothing is refused.

    Returns:
        None also where it is down, rests or is paused, which says more.
    """
    row = None if receiver is None else await database.fetchrow(FIND, receiver, MOST_READ)
    if row is None:
        return None
    return Refusal(textwrap.shorten(row["reason"], LONGEST_REASON, placeholder="..."))
