"""What is removed by its age of the records beside emails: entries of histories, what the receiver
was told, the audit log, and bulk actions."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs

from app.jobs.transitions.common import Database
from app.retention.marks import BEGINNING
from app.retention.sweeps import Connection, Count, Found, TimedSweep, count_of
from app.telemetry.metrics import Pruned

EVENT_PAGE = """
SELECT id, at, at < $2 AS is_due, true AS is_free
FROM email_events WHERE id > $1 ORDER BY id LIMIT $3
"""
COUNT_EVENTS = "SELECT count(*) AS free, 0 AS held FROM email_events WHERE at < $1"
AUDIT_PAGE = """
SELECT id, at, true AS is_due, true AS is_free
FROM audit_entries WHERE at >= $1 AND (at, id) > ($1, $2) AND at < $3 ORDER BY at, id LIMIT $4
"""
COUNT_AUDIT = "SELECT count(*) AS free, 0 AS held FROM audit_entries WHERE at < $1"
DELETE_AUDIT = "DELETE FROM audit_entries WHERE id = ANY($1::uuid[]) RETURNING id"
TOLD_PAGE = """
SELECT id, synced_at AS at, true AS is_due, true AS is_free FROM sync_events
WHERE sync_status = 'synced' AND (synced_at, id) > ($1, $2) AND synced_at < $3
ORDER BY synced_at, id LIMIT $4
"""
COUNT_TOLD = """
SELECT count(*) AS free, 0 AS held FROM sync_events
WHERE sync_status = 'synced' AND synced_at < $1
"""
# It may have been asked for again meanwhile.
DELETE_TOLD = """
DELETE FROM sync_events WHERE id = ANY (ARRAY(
    SELECT id FROM sync_events
    WHERE id = ANY($1::uuid[]) AND sync_status = 'synced' AND synced_at < $2
    ORDER BY id FOR UPDATE SKIP LOCKED
)) RETURNING id
"""
DELETE_EVENTS = "DELETE FROM email_events WHERE id = ANY($1::bigint[]) RETURNING id"
# What may be worked at or gone on with stays, and so does what its emails' lines still name: they
# go in their own time, a little at once.
_BULK_IS_FREE = """(action.state <> 'running' AND action.worked_at < {before}
    AND NOT EXISTS (SELECT FROM bulk_action_emails AS line WHERE line.action = action.id))"""
BULK_PAGE = f"""
SELECT id, asked_at AS at, true AS is_due, {_BULK_IS_FREE.format(before="$3")} AS is_free
FROM bulk_actions AS action
WHERE asked_at >= $1 AND (asked_at, id) > ($1, $2) AND asked_at < $3
ORDER BY asked_at, id LIMIT $4
"""  # noqa: S608 - of constants
COUNT_BULK = f"""
SELECT count(*) FILTER (WHERE is_free) AS free, count(*) FILTER (WHERE NOT is_free) AS held
FROM (
    SELECT {_BULK_IS_FREE.format(before="$1")} AS is_free
    FROM bulk_actions AS action WHERE asked_at < $1
) AS due
"""  # noqa: S608 - of constants
DELETE_BULK = f"""
DELETE FROM bulk_actions WHERE id = ANY (ARRAY(
    SELECT id FROM bulk_actions AS action
    WHERE id = ANY($1::uuid[]) AND {_BULK_IS_FREE.format(before="$2")}
    ORDER BY id FOR UPDATE SKIP LOCKED
)) RETURNING id
"""  # noqa: S608 - of constants


@attrs.frozen
class EventSweep:
    """Entries of histories. Their ids rise as their times do, near enough: what is passed by is
    found the next time."""

    before: datetime
    since: datetime = BEGINNING

    kind = Pruned.EVENTS
    least_id = 0
    name = "events"
    what = "entries of histories"

    async def page(
        self, database: Database, since: datetime, after: int, limit: int
    ) -> list[Found]:
        rows = await database.fetch(EVENT_PAGE, after, self.before, limit)
        found = [Found(*row) for row in rows]
        return found if any(entry.is_due for entry in found) else []

    async def remove(self, connection: Connection, ids: Sequence[int]) -> set[int]:
        return {row["id"] for row in await connection.fetch(DELETE_EVENTS, ids)}

    async def count(self, database: Database) -> Count:
        return await count_of(database, COUNT_EVENTS, self.before)


@attrs.frozen
class ToldSweep(TimedSweep):
    """What the receiver was told besides the ends of emails, such as that one was erased. What it
    could not be told stays until it is."""

    kind = Pruned.TOLD
    name = "told"
    what = "events that the receiver has"
    page_statement = TOLD_PAGE
    count_statement = COUNT_TOLD

    async def remove(self, connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
        return {row["id"] for row in await connection.fetch(DELETE_TOLD, ids, self.before)}


@attrs.frozen
class AuditSweep(TimedSweep):
    """Entries of the audit log, which a trigger lets nobody delete who does not say so."""

    kind = Pruned.AUDIT
    name = "audit"
    what = "entries of the audit log"
    page_statement = AUDIT_PAGE
    count_statement = COUNT_AUDIT

    async def remove(self, connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
        await connection.execute("SET LOCAL mailroom.prunes_audit = 'on'")
        return {row["id"] for row in await connection.fetch(DELETE_AUDIT, ids)}


@attrs.frozen
class BulkSweep(TimedSweep):
    """Bulk actions that ended, or were stopped and can go on no longer."""

    kind = Pruned.BULK
    name = "bulk"
    what = "bulk actions"
    page_statement = BULK_PAGE
    count_statement = COUNT_BULK

    async def remove(self, connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
        return {row["id"] for row in await connection.fetch(DELETE_BULK, ids, self.before)}
