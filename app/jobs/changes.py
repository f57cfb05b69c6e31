"""What tells pages that emails changed. The Intake and whatever makes an email due wake the
Dispatcher by its channel anyway; what workers claim and end they tell together, once a second at
most, so neither a webhook nor a claim has anything to do for it."""

from app.jobs.dispatcher import CHANNEL as RECEIVED
from app.jobs.leases import HeldClaims
from app.jobs.transitions.common import Database

WORKED = "mailroom_worked"
CHANNELS = (RECEIVED, WORKED)

TELL_EVERY_SECONDS = 1.0
# In a transaction of its own, which does not hold the server's one lock for NOTIFY while it waits
# for the disk.
TELL_SOON = """
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
SELECT pg_notify($1, '') FROM relaxed
"""


class ChangeTeller:
    """Tells for one worker process that its claims changed."""

    def __init__(self, held_claims: HeldClaims) -> None:
        self._held_claims = held_claims
        self._told = 0

    async def run_once(self, database: Database) -> None:
        """Tell, if there is something new."""
        changes = self._held_claims.changes
        if changes != self._told:
            await database.execute(TELL_SOON, WORKED)
            self._told = changes


async def tell(database: Database) -> None:
    """Tell that emails changed, or how far something is; once a transaction is committed."""
    await database.execute("SELECT pg_notify($1, '')", WORKED)
