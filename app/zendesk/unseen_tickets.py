"""Tickets whose comments could not be seen: Zendesk did not tell of them, or they lie in its trash.

The second line goes on without them. Here stands since when their comments are missing, so that
they are compared from then on, whenever they are told of.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs

from app.zendesk.cursors import Database

# How soon Zendesk is asked again for what it did not tell of, and for how many in a round.
ASK_AGAIN_AFTER = timedelta(minutes=15)
ASKED_IN_A_ROUND = 20
# So many rounds wait for a ticket for which Zendesk fails; then it is no matter of the moment.
ROUNDS_WAITED = 3
# Zendesk empties its trash after 30 days; until then a ticket may be restored.
TRASH_KEPT = timedelta(days=60)

FIND = """
SELECT ticket_id, unseen_since, rounds_away FROM zendesk_unseen_tickets
WHERE ticket_id = ANY($1::text[])
"""
# Whoever comes second may have looked further back.
NOTE = """
INSERT INTO zendesk_unseen_tickets AS known (ticket_id, unseen_since, ask_at, rounds_away)
VALUES ($1, $2, now() + $3::interval, $4)
ON CONFLICT (ticket_id) DO UPDATE SET
    unseen_since = least(known.unseen_since, excluded.unseen_since), ask_at = excluded.ask_at,
    rounds_away = known.rounds_away + excluded.rounds_away, noted_at = now()
RETURNING ticket_id, unseen_since, rounds_away
"""
# Who saw less of it than is missing leaves it.
REMOVE = "DELETE FROM zendesk_unseen_tickets WHERE ticket_id = $1 AND unseen_since >= $2"
SELECT_DUE = """
SELECT ticket_id, unseen_since, rounds_away FROM zendesk_unseen_tickets
WHERE ask_at <= now() ORDER BY ask_at LIMIT $1
"""
FORGET = """
DELETE FROM zendesk_unseen_tickets WHERE ask_at IS NULL AND noted_at < now() - $1::interval
"""


@attrs.frozen
class Unseen:
    """A ticket whose comments could not be seen."""

    ticket_id: str
    unseen_since: datetime
    rounds_away: int
    """In how many rounds Zendesk failed for it."""

    @property
    def is_set_aside(self) -> bool:
        """Whether Zendesk failed for it so often that no round waits for it."""
        return self.rounds_away >= ROUNDS_WAITED


async def find(database: Database, ticket_ids: Sequence[str]) -> dict[str, Unseen]:
    """Those of some tickets that could not be seen, by their ids."""
    return {
        record["ticket_id"]: Unseen(**record) for record in await database.fetch(FIND, ticket_ids)
    }


async def find_due(database: Database) -> list[Unseen]:
    """Those for which Zendesk is to be asked again."""
    return [Unseen(**record) for record in await database.fetch(SELECT_DUE, ASKED_IN_A_ROUND)]


async def note(
    database: Database, ticket_id: str, since: datetime, *, rounds_away: int = 0
) -> Unseen:
    """Zendesk did not tell of it: what was written since then is missing. It is asked again."""
    (record,) = await database.fetch(NOTE, ticket_id, since, ASK_AGAIN_AFTER, rounds_away)
    return Unseen(**record)


async def note_trashed(database: Database, ticket_id: str, since: datetime) -> None:
    """It lies in the trash, and is looked at when it changes, as it does when it is restored."""
    await database.execute(NOTE, ticket_id, since, None, 0)


async def remove(database: Database, ticket_id: str, since: datetime) -> None:
    """What was written since then was seen."""
    await database.execute(REMOVE, ticket_id, since)


async def forget(database: Database) -> None:
    """Forget what lay in the trash so long that Zendesk has deleted it."""
    await database.execute(FORGET, TRASH_KEPT)
