"""What differs between the end of an email's job and its delivery, and the statements that find it
and have it delivered again.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.models.email_event import EmailEventKind, events_of
from app.models.incoming_email import ProcessingStatus

Database: TypeAlias = (
    "asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    " | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


class Difference(StrEnum):
    """Why an email that has ended is to be delivered, or delivered again."""

    NEVER_ASKED = "never_asked"
    """Its end asked for no delivery: an older version ended it, or nobody was configured then. Or
    its delivery was called off, when nobody was configured any more."""

    OVERDUE = "overdue"
    """It is pending for too long, and waits for a later try, or for a worker that does not come."""

    CHANGED = "changed"
    """It ended anew after it was delivered, and that asked for no delivery."""

    FAILED = "failed"
    """Its delivery was given up."""

    LACKING = "lacking"
    """It was delivered, and its receiver says that it has it not."""

    UNTOLD = "untold"
    """It was erased, and telling the receiver so was given up."""

    CHOSEN = "chosen"
    """Nothing differs; somebody wants it delivered again."""


# What the columns alone tell; NULL where nothing differs. What is delivered right now is left
# alone, and so is what was erased, or is an email that nobody could read.
NOTHING_DIFFERS = "same"
_DIFFERENCE = f"""CASE
    WHEN email.erased_at IS NOT NULL OR email.sync_lease_expires_at > now() THEN NULL
    WHEN email.sync_status = 'not_applicable' AND email.processing_status = 'failed'
        AND email.extracted_data::text LIKE '{{"unreadable":%' THEN NULL
    WHEN email.sync_status = 'failed' THEN '{Difference.FAILED}'
    WHEN email.sync_status = 'not_applicable' THEN '{Difference.NEVER_ASKED}'
    WHEN email.sync_status = 'pending' AND email.completed_at < now() - $1::interval
        AND (email.sync_next_attempt_at BETWEEN now() - $1::interval AND now()) IS NOT TRUE
        THEN '{Difference.OVERDUE}'
    WHEN email.sync_status = 'synced' AND email.completed_at > email.synced_at
        THEN '{Difference.CHANGED}'
    WHEN email.sync_status = 'synced' THEN '{NOTHING_DIFFERS}'
    END"""

# The same of emails that somebody names.
LOOK_AT = f"""
SELECT id, completed_at, sync_version, {_DIFFERENCE} AS difference
FROM incoming_emails AS email
WHERE id = ANY ($2::uuid[]) AND processing_status = ANY ($3::text[]) AND completed_at IS NOT NULL
"""  # noqa: S608 - a constant

SAID = {
    Difference.NEVER_ASKED: (
        "to be delivered: its end had not asked for that, or it had been called off"
    ),
    Difference.OVERDUE: "to be delivered at once: it had been pending for too long",
    Difference.CHANGED: "to be delivered again: it had ended anew since it was delivered",
    Difference.FAILED: "to be delivered again: its delivery had been given up",
    Difference.LACKING: "to be delivered again: its receiver says that it has it not",
    Difference.CHOSEN: "to be delivered again",
}


def _stretch(narrow: str) -> str:
    """The next emails in a state, in the order in which they ended."""
    return f"""(
    SELECT id, completed_at, synced_at, erased_at, sync_status, sync_version,
        sync_next_attempt_at, sync_lease_expires_at, processing_status, extracted_data
    FROM incoming_emails
    WHERE processing_status = $2 {narrow}
        AND completed_at >= COALESCE($3::timestamptz, '-infinity')
        AND (completed_at, id) > (COALESCE($3::timestamptz, '-infinity'), $4)
        AND completed_at < COALESCE($5::timestamptz, 'infinity')
        AND ($6::uuid[] IS NULL OR id = ANY ($6))
        AND ($7::text IS NULL OR zendesk_ticket_id = $7)
        AND ($8::text IS NULL OR lower(from_email) = lower($8))
    ORDER BY completed_at, id
    LIMIT $9
)"""  # noqa: S608 - a constant


def _find(*stretches: str) -> str:
    """What differs in a stretch: that is bounded whatever it finds, so that no look at a large
    archive takes long."""
    return f"""
SELECT id, completed_at, sync_version, {_DIFFERENCE} AS difference
FROM ({" UNION ALL ".join(stretches)}) AS email
ORDER BY completed_at, id
LIMIT $9
"""  # noqa: S608 - a constant


FIND = _find(_stretch(""))
# By the index that holds these alone, which has each of the two in this order, and not both.
FIND_UNSYNCED = _find(
    _stretch("AND sync_status = 'pending'"), _stretch("AND sync_status = 'failed'")
)

# Whoever delivers one right now, or changed it meanwhile, is not disturbed: the next run sees it.
# A result that the receiver may have in an older form gets a number of its own; otherwise it keeps
# its number, and so the id by which the receiver knows it again. The tries of what was pending are
# not given anew.
DELIVER = f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($2::uuid[], $3::text[], $4::text[]) AS asked (email_id, difference, said)
),
free AS MATERIALIZED (
    SELECT email.id, difference, said
    FROM incoming_emails AS email JOIN asked ON email.id = email_id
    WHERE email.id = ANY (ARRAY(SELECT email_id FROM asked))
        AND email.completed_at IS NOT NULL
        AND {_DIFFERENCE} = CASE WHEN difference IN ('{Difference.LACKING}', '{Difference.CHOSEN}')
            THEN '{NOTHING_DIFFERS}' ELSE difference END
        AND (email.sync_status <> 'pending' OR COALESCE(email.sync_next_attempt_at > now(), true))
    ORDER BY email.id
    FOR UPDATE OF email SKIP LOCKED
),
delivered AS (
    UPDATE incoming_emails AS email
    SET sync_status = 'pending', sync_next_attempt_at = now(),
        sync_version = CASE WHEN difference = '{Difference.CHANGED}' THEN sync_version + 1
            ELSE GREATEST(sync_version, 1) END,
        sync_retry_count = CASE WHEN sync_status = 'pending' THEN sync_retry_count ELSE 0 END,
        sync_error = CASE WHEN sync_status = 'pending' THEN sync_error END
    FROM free
    WHERE email.id = ANY (ARRAY(SELECT id FROM free)) AND email.id = free.id
    RETURNING email.id, said
),
history AS ({events_of("delivered", EmailEventKind.RECONCILIATION, "said", who="$5")})
SELECT id FROM delivered
"""  # noqa: S608 - a constant


# What is told besides the ends of emails. There is little of it, and less that was given up.
_UNTOLD = """SELECT id FROM sync_events
    WHERE sync_status = 'failed'
        AND ($1::uuid[] IS NULL OR email = ANY ($1))
        AND created_at >= COALESCE($2::timestamptz, '-infinity')
        AND created_at < COALESCE($3::timestamptz, 'infinity')"""
COUNT_UNTOLD = f"SELECT count(*) FROM ({_UNTOLD}) AS untold"  # noqa: S608 - a constant
TELL = f"""
WITH untold AS MATERIALIZED ({_UNTOLD} ORDER BY id FOR UPDATE SKIP LOCKED)
UPDATE sync_events
SET sync_status = 'pending', sync_next_attempt_at = now(), sync_retry_count = 0, sync_error = NULL
WHERE id = ANY (ARRAY(SELECT id FROM untold))
"""  # noqa: S608 - a constant


@attrs.frozen(kw_only=True)
class Which:
    """Which emails are looked at; all that is given has to hold."""

    ids: Collection[UUID] = ()
    ticket_id: str | None = None
    from_email: str | None = None
    """The whole address, in upper or lower case."""
    since: datetime | None = None
    """When they ended, at the earliest."""
    until: datetime | None = None
    """Exclusive."""
    overdue_after: timedelta


@attrs.frozen
class Place:
    """An email, in the order in which a run goes through them."""

    status: ProcessingStatus
    completed_at: datetime | None
    """None: before the first one."""
    id: UUID


@attrs.frozen
class Looked:
    """One email that was looked at."""

    id: UUID
    completed_at: datetime
    sync_version: int
    difference: str | None
    """A `Difference`, NOTHING_DIFFERS, or None: it is to be left alone."""


async def find(
    database: Database, which: Which, place: Place, *, limit: int, unsynced_alone: bool
) -> list[Looked]:
    """The next emails after a place, in a state.

    Args:
        unsynced_alone: of those that are pending or were given up.
    """
    rows = await database.fetch(
        FIND_UNSYNCED if unsynced_alone else FIND,
        which.overdue_after,
        place.status.value,
        place.completed_at,
        place.id,
        which.until,
        list(which.ids) or None,
        which.ticket_id,
        which.from_email,
        limit,
    )
    return [Looked(*row) for row in rows]


async def count_untold(database: Database, which: Which) -> int:
    """How many erasures the receiver was not told of, because that was given up."""
    count: int = await database.fetchval(
        COUNT_UNTOLD, list(which.ids) or None, which.since, which.until
    )
    return count


async def tell(database: Database, which: Which) -> int:
    """failed -> pending, of what is told besides the ends of emails. Returns how many."""
    tag = await database.execute(TELL, list(which.ids) or None, which.since, which.until)
    return int(tag.removeprefix("UPDATE "))


async def deliver(
    database: Database,
    found: Sequence[tuple[UUID, Difference]],
    *,
    overdue_after: timedelta,
    by: str,
) -> list[UUID]:
    """synced, failed, not_applicable -> pending; pending -> pending, due now.

    Args:
        by: whose wish it is; stands in the story.

    Returns:
        Which: not what is delivered right now, is due already, or differs no more.
    """
    rows = await database.fetch(
        DELIVER,
        overdue_after,
        [email_id for email_id, _ in found],
        [difference.value for _, difference in found],
        [SAID[difference] for _, difference in found],
        by,
    )
    return [row["id"] for row in rows]


async def deliver_again(
    database: Database,
    email_ids: Collection[UUID],
    states: Collection[ProcessingStatus],
    *,
    by: str,
) -> list[UUID]:
    """Have emails that have ended delivered, or once more, whatever differs. What waits for a later
    try is due at once.

    Args:
        states: ends of jobs that are delivered.

    Returns:
        Which: as `deliver` does.
    """
    at_once = timedelta(0)
    rows = await database.fetch(LOOK_AT, at_once, email_ids, [state.value for state in states])
    found = [
        (row["id"], Difference.CHOSEN if told == NOTHING_DIFFERS else Difference(told))
        for row in rows
        if (told := row["difference"]) is not None
    ]
    return await deliver(database, found, overdue_after=at_once, by=by)
