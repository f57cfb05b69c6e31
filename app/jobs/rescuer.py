"""The Rescuer: what got stuck goes back to `queued`, where the Dispatcher finds it.

Two things get stuck: an email whose worker vanished (its lease ran out), and one whose message
was lost (the broker was emptied, or a Dispatcher died at a bad moment).
"""

from datetime import timedelta
from uuid import UUID

import structlog

from app.jobs.leases import HeldClaims
from app.jobs.transitions import keeping
from app.jobs.transitions.common import Database
from app.jobs.whole_looks import WholeLooks

log = structlog.get_logger(__name__)

BATCH = 500


class Rescuer:
    """Brings back what got stuck, for a worker process.

    Args:
        held_claims: of this process; they tell whether it has anything to do, and how long it has
            been reaching the database.
        lease: of all workers.
        lost_after: how long an email is queued before its message may be lost.
        concurrency: how many emails this process handles at once.
    """

    def __init__(
        self, held_claims: HeldClaims, *, lease: timedelta, lost_after: timedelta, concurrency: int
    ) -> None:
        self._held_claims = held_claims
        self._lease = lease
        self._lost_after = lost_after
        self._concurrency = concurrency
        self._had_room = False
        self._whole_looks = WholeLooks()
        self._since = keeping.ALL

    async def run_once(self, database: Database) -> int:
        """Bring back what is stuck now.

        Where this process has not reached the database for a whole lease, those whose leases ran
        out may live, and be about to extend them: nobody is taken for vanished.

        Returns:
            How many emails were brought back.
        """
        is_whole = self._whole_looks.begin()
        since = keeping.ALL if is_whole else self._since
        takes_over = self._held_claims.contact.has_lasted(self._lease)
        expired: list[UUID] = []
        if takes_over:
            expired = await keeping.rescue_expired(database, limit=BATCH, since=since)
        # Two looks, since a worker may be between two emails.
        had_room, self._had_room = (
            self._had_room,
            len(self._held_claims.all()) < self._concurrency,
        )
        unheard = await keeping.rescue_unheard(
            database,
            limit=BATCH,
            lost_after=self._lost_after,
            is_idle=had_room and self._had_room,
            since=since,
        )
        self._since = await keeping.beginnings(database, since)
        if is_whole:
            self._whole_looks.end()
        for email_id in expired:
            log.warning("lease_ran_out", email_id=str(email_id))
        if unheard:
            log.warning("messages_lost", emails=len(unheard))
        return len(expired) + len(unheard)
