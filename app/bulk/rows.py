"""The rows of bulk actions: who asked for what, to which emails, and how far it is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import attrs

from app.audit import log as audit
from app.audit.actors import Actor
from app.audit.acts import Act
from app.bulk.acting import Connection, Wish
from app.jobs.transitions.common import Database, changed
from app.models.bulk_action import Action, BulkState
from app.models.fit import read_object

KEPT_DAYS = 30
"""So long can a bulk action that was stopped go on, and is known which emails it left out."""

# Who sends a form twice has asked once.
ASK = """
INSERT INTO bulk_actions (id, action, filter, reason, asked_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO NOTHING
RETURNING id
"""
FIX = "UPDATE bulk_actions SET total = $2 WHERE id = $1"
_COLUMNS = """id, action, filter, reason, asked_by, asked_at, state, total, done, skipped, failed,
    reasons, worked_at, ended_at, stopped_by"""
READ = f"SELECT {_COLUMNS} FROM bulk_actions WHERE id = $1"  # noqa: S608 - a constant
LIST = f"""
SELECT {_COLUMNS} FROM bulk_actions
WHERE (asked_at, id) < (COALESCE($1::timestamptz, 'infinity'), $2)
ORDER BY asked_at DESC, id DESC LIMIT $3
"""  # noqa: S608 - a constant
RUNNING = "SELECT id FROM bulk_actions WHERE state = 'running' ORDER BY worked_at"
PEEK = """
SELECT action, reason, asked_by, position FROM bulk_actions WHERE id = $1 AND state = 'running'
"""
# Whoever has it carries the action out: nobody else moves its position meanwhile.
LOCK = f"{PEEK} FOR UPDATE"
NEXT = """
SELECT id, email FROM bulk_action_emails WHERE action = $1 AND id > $2 ORDER BY id LIMIT $3
"""
KEEP_WHY = """
UPDATE bulk_action_emails AS row SET why = given.why
FROM unnest($1::bigint[], $2::text[]) AS given (id, why)
WHERE row.id = ANY ($1::bigint[]) AND row.id = given.id
"""
ADVANCE = """
UPDATE bulk_actions
SET position = $2, done = done + $3, skipped = skipped + $4, failed = failed + $5,
    worked_at = now(), reasons = reasons || COALESCE((
        SELECT jsonb_object_agg(why, COALESCE((reasons ->> why)::int, 0) + given.number)
        FROM unnest($6::text[], $7::int[]) AS given (why, number)
    ), '{}')
WHERE id = $1
"""
END = "UPDATE bulk_actions SET state = 'ended', ended_at = now(), worked_at = now() WHERE id = $1"
# Whom an erasure was about is kept until it has ended.
FORGET_FILTER = "UPDATE bulk_actions SET filter = $2 WHERE id = $1 AND filter IS NOT NULL"
STOP = """
UPDATE bulk_actions SET state = 'stopped', stopped_by = $2, worked_at = now()
WHERE id = $1 AND state = 'running'
"""
RESUME = f"""
UPDATE bulk_actions SET state = 'running', stopped_by = NULL, worked_at = now()
WHERE id = $1 AND state = 'stopped' AND asked_at > now() - interval '{KEPT_DAYS} days'
"""  # noqa: S608 - a constant
LEFT_OUT = """
SELECT row.email, row.why, email.subject
FROM bulk_action_emails AS row LEFT JOIN incoming_emails AS email ON email.id = row.email
WHERE row.action = $1 AND row.why IS NOT NULL ORDER BY row.id LIMIT $2
"""
# The lines of emails that are done go at once, the others when the action is old. A position says
# that there may be some: it is 0 when the first are gone, and -1 then.
FORGETTABLE = f"""
SELECT id, asked_at < now() - interval '{KEPT_DAYS} days' AS is_old FROM bulk_actions
WHERE (state = 'ended' AND position > 0) OR (
    state <> 'running' AND position >= 0 AND asked_at < now() - interval '{KEPT_DAYS} days'
)
"""  # noqa: S608 - a constant
FORGET = """
DELETE FROM bulk_action_emails WHERE id = ANY (ARRAY(
    SELECT id FROM bulk_action_emails WHERE action = $1 AND ($2 OR why IS NULL) LIMIT $3
))
"""
FORGOTTEN = """
UPDATE bulk_actions SET position = CASE WHEN $2 THEN -1 ELSE 0 END
WHERE id = $1 AND state <> 'running'
"""


@attrs.frozen
class Bulk:
    """A bulk action, and how far it is."""

    id: UUID
    action: Action
    filter: str | None
    """The search that found its emails; None: they were named."""
    reason: str | None
    asked_by: str
    asked_at: datetime
    state: BulkState
    total: int
    done: int
    skipped: int
    failed: int
    reasons: Mapping[str, int]
    """How many were skipped or failed, by why."""
    worked_at: datetime
    ended_at: datetime | None
    stopped_by: str | None

    @property
    def looked_at(self) -> int:
        return self.done + self.skipped + self.failed


@attrs.frozen
class LeftOut:
    """An email to which it was not done."""

    email: UUID
    why: str
    subject: str | None
    """None: the email is gone."""


async def read(database: Database, action_id: UUID) -> Bulk | None:
    """One of them."""
    row = await database.fetchrow(READ, action_id)
    return _bulk(row) if row is not None else None


async def list_newest(
    database: Database, *, limit: int, after: tuple[datetime, UUID] | None = None
) -> list[Bulk]:
    """Bulk actions, those asked for last first; after that one."""
    asked_at, action_id = after or (None, UUID(int=2**128 - 1))
    return [_bulk(row) for row in await database.fetch(LIST, asked_at, action_id, limit)]


async def find_running(database: Database) -> list[UUID]:
    """Those that are to be carried out, which had their last step long ago first."""
    return [row["id"] for row in await database.fetch(RUNNING)]


async def next_emails(
    database: Database, action_id: UUID, *, for_update: bool = False
) -> tuple[Wish, int, list[tuple[int, UUID]]] | None:
    """What is to be done next.

    Args:
        for_update: have it for the rest of the transaction.

    Returns:
        The wish, its position, and places and ids of the next emails; None: it does not run.
    """
    row = await database.fetchrow(LOCK if for_update else PEEK, action_id)
    if row is None:
        return None
    wish = Wish(
        id=action_id, action=Action(row["action"]), by=row["asked_by"], reason=row["reason"]
    )
    rows = await database.fetch(NEXT, action_id, row["position"], wish.batch)
    return wish, row["position"], [(row["id"], row["email"]) for row in rows]


async def advance(
    connection: Connection,
    action_id: UUID,
    looked_at: Sequence[tuple[int, UUID]],
    ends: Mapping[UUID, str | None],
    *,
    failure: str,
) -> None:
    """Count what became of some emails, in the transaction in which it was done.

    Args:
        ends: for each email why it was not done, or None.
        failure: which of these is a failure.
    """
    left = [(place, why) for place, email in looked_at if (why := ends[email]) is not None]
    if left:
        await connection.execute(KEEP_WHY, [place for place, _ in left], [why for _, why in left])
    told: dict[str, int] = {}
    for _, why in left:
        told[why] = told.get(why, 0) + 1
    failed = told.get(failure, 0)
    await connection.execute(
        ADVANCE,
        action_id,
        looked_at[-1][0],
        len(looked_at) - len(left),
        len(left) - failed,
        failed,
        list(told),
        list(told.values()),
    )


async def stop(database: audit.Database, action_id: UUID, *, by: str, actor: Actor) -> bool:
    """running -> stopped, after the step that is being made. Returns whether it ran."""
    async with audit.in_transaction(database) as connection:
        is_done = changed(await connection.execute(STOP, action_id, by))
        result = audit.result_of(is_done)
        await audit.write(connection, actor, Act.BULK_STOP, [action_id], result=result)
    return is_done


async def resume(database: audit.Database, action_id: UUID, *, actor: Actor) -> bool:
    """stopped -> running. Returns whether it was stopped, not longer ago than it is kept."""
    async with audit.in_transaction(database) as connection:
        is_done = changed(await connection.execute(RESUME, action_id))
        result = audit.result_of(is_done)
        await audit.write(connection, actor, Act.BULK_RESUME, [action_id], result=result)
    return is_done


async def find_left_out(database: Database, action_id: UUID, *, limit: int) -> list[LeftOut]:
    """The emails to which it was not done, as far as that is still kept."""
    return [LeftOut(*row) for row in await database.fetch(LEFT_OUT, action_id, limit)]


async def find_forgettable(database: Database) -> list[tuple[UUID, bool]]:
    """Bulk actions of which lines can go: their ids, and whether all of them can."""
    return [(row["id"], row["is_old"]) for row in await database.fetch(FORGETTABLE)]


async def forget(database: Database, action_id: UUID, *, is_old: bool, limit: int) -> bool:
    """Remove some lines of a bulk action. Returns whether there were any."""
    if await database.execute(FORGET, action_id, is_old, limit) != "DELETE 0":
        return True
    await database.execute(FORGOTTEN, action_id, is_old)
    return False


def _bulk(row: "asyncpg.Record") -> Bulk:
    columns: dict[str, Any] = dict(row)
    return Bulk(
        **columns
        | {
            "action": Action(row["action"]),
            "state": BulkState(row["state"]),
            "reasons": {
                why: number
                for why, number in read_object(row["reasons"]).items()
                if isinstance(number, int)
            },
        }
    )
