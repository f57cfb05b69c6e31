"""The Rescuer: what got stuck goes back to `queued`, where the Dispatcher finds it.

Two things get stuck: an email whose worker vanished (its lease ran out), and one whose message
was lost (the broker was emptied, or a Dispatcher died at a bad moment).
"""

from datetime import timedelta

import structlog

from app.jobs.transitions import keeping
from app.jobs.transitions.common import Database

log = structlog.get_logger(__name__)

BATCH = 500


async def rescue_once(
    database: Database, *, lost_after: timedelta, is_idle: bool, takes_over: bool
) -> int:
    """Bring back what is stuck now.

    Args:
        lost_after: how long an email is queued before its message may be lost.
        is_idle: a worker of this process has nothing to do.
        takes_over: whoever holds an email had its chance to extend the lease.

    Returns:
        How many emails were brought back.
    """
    expired = await keeping.rescue_expired(database, limit=BATCH) if takes_over else []
    unheard = await keeping.rescue_unheard(
        database, limit=BATCH, lost_after=lost_after, is_idle=is_idle
    )
    for email_id in expired:
        log.warning("lease_ran_out", email_id=str(email_id))
    if unheard:
        log.warning("messages_lost", emails=len(unheard))
    return len(expired) + len(unheard)
