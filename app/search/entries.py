"""The entries by which words find emails: one for each, in the table `search_entries`.

They stand apart from the emails, whose rows are written at each change of state, and are written
off the way of an email: by a chore every few seconds, and by whoever searches meanwhile. What is
removed from an email is removed from its entry in the same transaction, by triggers, since an older
version knows no entries; the two kinds of writers keep apart by a lock, so that no entry is made of
what is just being removed.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.search.words import make_entry

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)

BATCH = 500
# So many emails are in memory at a time, and as long the event loop does nothing else.
SLICE = 100
# Of what a handler returned, in bytes of JSON: more is not found by its values.
LONGEST_RESULT = 100_000
# Of each kind, before a search: more would keep whoever searches waiting.
CAUGHT_UP_BATCHES = 2
# What is stored mostly ends soon, and is written once then.
ENDS_WITHIN = timedelta(seconds=20)
# Of advisory locks, which the whole database shares; the triggers name it, too.
LOCK_NUMBER = 5_216_001

LOWEST_ID = UUID(int=0)
END_OF_TIME = datetime.max.replace(tzinfo=UTC)

# What a crash of the server takes is written again: the marks go with the entries.
UNSYNCED = "SET LOCAL synchronous_commit = off"
LOCK = f"SELECT pg_advisory_xact_lock({LOCK_NUMBER})"
LOCK_SHARED = f"SELECT pg_advisory_xact_lock_shared({LOCK_NUMBER})"

READ_MARKS = "SELECT stored_until, ended_until, older_than, older_id FROM search_marks WHERE id = 1"
OLDER_THAN = "SELECT older_than FROM search_marks WHERE id = 1"
# What is committed later began later: `created_at` and `completed_at` are the beginnings of the
# transactions that wrote them. One that has written nothing yet has no number, and may write still;
# after a minute it only reads, as a backup does for hours.
SAFE = """
SELECT LEAST(now(), min(xact_start)) FROM pg_stat_activity
WHERE (backend_xid IS NOT NULL OR xact_start > now() - interval '1 minute')
    AND datname = current_database() AND pid <> pg_backend_pid()
"""
SAFE_AND_NOW = f"SELECT moment, now() FROM ({SAFE}) AS safe (moment)"  # noqa: S608 - of constants
BEGIN = f"""
INSERT INTO search_marks (id, stored_until, ended_until, older_than)
SELECT 1, moment, moment, moment FROM ({SAFE}) AS safe (moment)
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - of constants
WRITE_MARKS = """
UPDATE search_marks SET stored_until = $1, ended_until = $2, older_than = $3, older_id = $4
WHERE id = 1
"""

_HAS_FILES = """CASE
    WHEN attachment_urls IS NULL OR json_typeof(attachment_urls) <> 'array' THEN false
    ELSE json_array_length(attachment_urls) > 0 END AS has_files"""
_RESULT = f"""CASE WHEN octet_length(extracted_data::text) <= {LONGEST_RESULT}
    THEN extracted_data::text END AS extracted_data"""
# Entries are looked up one by one: for a join the planner may read both tables whole.
_WITH_ENTRY = """
SELECT email.id, created_at, completed_at FROM incoming_emails AS email
LEFT JOIN LATERAL (
    SELECT made.email AS id, made.ended_at FROM search_entries AS made
    WHERE made.email = email.id OFFSET 0
) AS entry ON true
"""
# By ix_incoming_emails_created and ix_incoming_emails_finished; what has its entry is passed by.
STORED = f"""{_WITH_ENTRY} WHERE created_at >= $1 AND created_at < $2 AND entry.id IS NULL
ORDER BY created_at LIMIT $3"""
ENDED = [
    f"""{_WITH_ENTRY} WHERE processing_status = '{status}' AND completed_at >= $1
    AND entry.ended_at IS DISTINCT FROM completed_at
ORDER BY completed_at LIMIT $2"""
    for status in ("completed", "failed")
]
# A page of what is there, whether it has an entry or not: so each is as short as another.
OLDER = """
SELECT id, created_at FROM incoming_emails WHERE (created_at, id) < ($1, $2)
ORDER BY created_at DESC, id DESC LIMIT $3
"""
WITHOUT_ENTRY = """
SELECT id FROM unnest($1::uuid[]) AS id
WHERE NOT EXISTS (SELECT FROM search_entries WHERE email = id)
"""
BY_IDS = f"""
SELECT id, zendesk_ticket_id, from_email, from_name, subject, processing_error, {_RESULT},
    {_HAS_FILES}, received_at, completed_at
FROM incoming_emails WHERE id = ANY($1::uuid[])
"""  # noqa: S608 - of constants

WRITE = """
INSERT INTO search_entries (email, received_at, ended_at, words)
SELECT email, received_at, ended_at, words::tsvector
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[])
    AS made (email, received_at, ended_at, words)
ORDER BY received_at
ON CONFLICT (email) DO UPDATE SET received_at = excluded.received_at,
    ended_at = excluded.ended_at, words = excluded.words
"""
REMOVE = "DELETE FROM search_entries WHERE email = ANY($1::uuid[])"


@attrs.frozen
class Progress:
    """What a batch has done."""

    written: int
    is_current: bool
    """Nothing that is newer than the index is without an entry; but see `waits`."""
    behind: timedelta
    """How long ago it is that all was written which was to be written then."""
    older_than: datetime | None
    """Of what was stored before, not all has an entry yet; None: all has."""


async def index_batch(
    connection: Connection, *, older: bool = False, waits: bool = False
) -> Progress:
    """Write entries that are missing, a batch of each kind at most, in a transaction of its own.

    Args:
        older: of emails that were there before the index as well; so it is the first time anyway.
        waits: for the ends of emails that were stored `ENDS_WITHIN` ago.
    """
    async with connection.transaction():
        marks = await connection.fetchrow(READ_MARKS)
        await connection.execute(UNSYNCED)
        await connection.execute(LOCK)
        if marks is None:
            await connection.execute(BEGIN)
            older = True
        # Whoever had the lock before has moved them on.
        marks = await connection.fetchrow(READ_MARKS)
        if marks is None:
            raise LookupError("the marks of the search are gone")
        ((safe, now),) = await connection.fetch(SAFE_AND_NOW)
        # A transaction that stays open keeps the marks back, and no entry.
        before = now - ENDS_WITHIN if waits else END_OF_TIME
        aim = min(safe, before)
        stored = await connection.fetch(STORED, marks["stored_until"], before, BATCH)
        reached = min(aim, stored[-1]["created_at"]) if len(stored) == BATCH else aim
        stored_until = max(marks["stored_until"], reached)
        ended = [
            await connection.fetch(statement, marks["ended_until"], BATCH) for statement in ENDED
        ]
        full = [rows[-1]["completed_at"] for rows in ended if len(rows) == BATCH]
        ended_until = max(marks["ended_until"], min([safe, *full]))
        older_than: datetime | None = marks["older_than"]
        older_id: UUID | None = marks["older_id"]
        missing: list[asyncpg.Record] = []
        if older and older_than is not None:
            page = await connection.fetch(OLDER, older_than, older_id or LOWEST_ID, BATCH)
            older_than, older_id = (
                (page[-1]["created_at"], page[-1]["id"]) if len(page) == BATCH else (None, None)
            )
            missing = await connection.fetch(WITHOUT_ENTRY, [row["id"] for row in page])
        found = dict.fromkeys(row["id"] for rows in (missing, stored, *ended) for row in rows)
        await write(connection, list(found))
        moved = (stored_until, ended_until, older_than, older_id)
        if moved != tuple(marks):
            await connection.execute(WRITE_MARKS, *moved)
    is_current = len(stored) < BATCH and not full
    behind = max(aim - stored_until, safe - ended_until, timedelta())
    return Progress(len(found), is_current, behind, older_than)


async def catch_up(database: "Connection | Pool") -> bool:
    """Write the entries of what came or ended since the chore was at work, before a search.

    Returns:
        Whether nothing is without one but what was there before the index. Of a flood some batches
        are left to the chore.
    """
    if isinstance(database, asyncpg.Pool):
        async with database.acquire() as connection:
            return await catch_up(connection)
    for _ in range(CAUGHT_UP_BATCHES):
        if (await index_batch(database)).is_current:
            return True
    return False


async def find_unindexed(database: "Connection | Pool") -> datetime | None:
    """The moment before which stored emails may be without an entry still; None where none is."""
    moment: datetime | None = await database.fetchval(OLDER_THAN)
    return moment


async def write(connection: Connection, email_ids: Sequence[UUID]) -> None:
    """Write the entries of these emails, in a transaction of the caller's that holds the lock."""
    for first in range(0, len(email_ids), SLICE):
        rows = await connection.fetch(BY_IDS, email_ids[first : first + SLICE])
        await connection.execute(
            WRITE,
            [row["id"] for row in rows],
            [row["received_at"] for row in rows],
            [row["completed_at"] for row in rows],
            [make_entry(dict(row)) for row in rows],
        )


async def write_anew(connection: Connection, email_ids: Collection[UUID]) -> None:
    """Write the entries of emails of which a part has gone, in the transaction in which it went."""
    await connection.execute(LOCK_SHARED)
    await connection.execute(REMOVE, email_ids)
    await write(connection, list(email_ids))
