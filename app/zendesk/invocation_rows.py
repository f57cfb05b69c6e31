"""The rows of invocations that Zendesk did not record as delivered: listed, then looked into."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.models.zendesk_watch import Outcome
from app.zendesk.cursors import Database
from app.zendesk.webhooks import Invocation

KEPT = timedelta(days=30)
CURSOR = "invocations "
"""What the name of the cursor of a webhook's list begins with; its id follows."""

# One that was tried again since it was looked into is looked into again, unless it is done with.
LIST = f"""
INSERT INTO zendesk_invocations AS known (id, webhook_id, status, completed_at)
SELECT listed.id, $1, left(listed.status, 40), listed.completed_at
FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS listed (id, status, completed_at)
ORDER BY listed.id
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, completed_at = excluded.completed_at, outcome = '{Outcome.WAITING}',
    looked_at = NULL
WHERE known.completed_at < excluded.completed_at
    AND known.outcome IN ('{Outcome.NO_REQUEST}', '{Outcome.QUARANTINED}', '{Outcome.ODD}')
"""  # noqa: S608 - constants
DELIVER = f"""
UPDATE zendesk_invocations SET outcome = '{Outcome.DELIVERED}', looked_at = now()
WHERE id = ANY($1::text[]) AND outcome IN ('{Outcome.WAITING}', '{Outcome.NO_REQUEST}')
"""  # noqa: S608 - constants
# The oldest first: Zendesk forgets them first. Of those that were put off, each has its turn.
SELECT_WAITING = f"""
SELECT id, webhook_id, looked_at IS NOT NULL AS is_put_off FROM zendesk_invocations
WHERE outcome = '{Outcome.WAITING}' AND (looked_at IS NOT NULL) = $2
ORDER BY looked_at, completed_at, id LIMIT $1
"""  # noqa: S608 - constants
PUT_OFF = "UPDATE zendesk_invocations SET looked_at = now() WHERE id = $1"
END = f"""
WITH ended AS (
    UPDATE zendesk_invocations SET outcome = $2, email = $3, looked_at = now()
    WHERE id = $1
    RETURNING webhook_id
)
UPDATE zendesk_cursors AS list SET found = found + 1
FROM ended WHERE list.name = '{CURSOR}' || ended.webhook_id AND $2 = '{Outcome.RECOVERED}'
"""  # noqa: S608 - constants
FORGET = f"""
DELETE FROM zendesk_invocations
WHERE completed_at < now() - $1::interval AND outcome <> '{Outcome.WAITING}'
"""  # noqa: S608 - constants
COUNT_WAITING = f"""
SELECT count(*)::int FROM zendesk_invocations WHERE outcome = '{Outcome.WAITING}'
"""  # noqa: S608 - constants
SELECT_SEEN_UNTIL = f"""
SELECT max(seen_until) FROM zendesk_cursors WHERE name LIKE '{CURSOR}%'
"""  # noqa: S608 - constants
# How far they were looked through stays known.
LET_GO = f"""
UPDATE zendesk_cursors SET ended_at = NULL, trouble = NULL
WHERE name LIKE '{CURSOR}%' AND name <> ALL($1::text[])
    AND (ended_at IS NOT NULL OR trouble IS NOT NULL)
"""  # noqa: S608 - constants
# Its reader is the quarantine, which is bounded.
IN_QUARANTINE = """
SELECT EXISTS (
    SELECT FROM quarantined_webhooks WHERE headers ->> 'x-zendesk-webhook-invocation-id' = $1
)
"""


@attrs.frozen
class Waiting:
    """An invocation that nobody has looked into."""

    id: str
    webhook_id: str
    is_put_off: bool = False
    """It could not be looked into, or there was no room for its request."""


async def seen_until(database: Database) -> datetime | None:
    """How far the webhook was looked through that was looked at last; another one that takes its
    place begins there. None where none was."""
    found: datetime | None = await database.fetchval(SELECT_SEEN_UNTIL)
    return found


async def let_go(database: Database, webhook_ids: Sequence[str]) -> None:
    """Of all webhooks but these nobody is late any more: they were deleted, or others took their
    places."""
    await database.execute(LET_GO, [f"{CURSOR}{webhook_id}" for webhook_id in webhook_ids])


async def enlist(database: Database, webhook_id: str, listed: Sequence[Invocation]) -> None:
    """Note what Zendesk listed: what was not delivered waits to be looked into."""
    missed = [one for one in listed if not one.is_delivered]
    await database.execute(
        LIST,
        webhook_id,
        [one.id for one in missed],
        [one.status for one in missed],
        [one.latest_completed_at for one in missed],
    )
    await database.execute(DELIVER, [one.id for one in listed if one.is_delivered])


async def waiting(database: Database, limit: int) -> list[Waiting]:
    """Those that nobody has looked into, the oldest first; where there are none, those that were
    put off, which have waited longest since first."""
    found = await database.fetch(SELECT_WAITING, limit, False)
    found = found or await database.fetch(SELECT_WAITING, limit, True)
    return [Waiting(**record) for record in found]


async def put_off(database: Database, invocation_id: str) -> None:
    """It cannot be seen to now: it is looked into again, after all others."""
    await database.execute(PUT_OFF, invocation_id)


async def count_waiting(database: Database) -> int:
    """How many nobody has looked into."""
    count: int = await database.fetchval(COUNT_WAITING)
    return count


async def is_in_quarantine(database: Database, invocation_id: str) -> bool:
    """Whether its request came, was refused, and is kept."""
    found: bool = await database.fetchval(IN_QUARANTINE, invocation_id)
    return found


async def forget(database: Database) -> None:
    """Delete those that were looked into long ago."""
    await database.execute(FORGET, KEPT)


async def end(
    database: Database, invocation_id: str, outcome: Outcome, email_id: UUID | None = None
) -> None:
    """It was looked into."""
    await database.execute(END, invocation_id, outcome.value, email_id)
