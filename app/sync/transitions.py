"""Every change of what is delivered: pending -> synced | failed, and pending again.

The columns have the same names in `incoming_emails` and in `sync_events`. Each change is one
guarded statement over many rows; it names the token of its claim, so that a worker whose lease ran
out changes nothing. An email is delivered by one worker at a time, and a result that came while the
one before was delivered waits for that: so the last one is the last to arrive. Nothing here touches
a column of the job. How the end of a job asks for its delivery is `app.sync.asking`, how a worker
claims it `app.sync.claims`.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from enum import Enum, StrEnum, auto
from uuid import UUID

import attrs

from app.models.email_event import EmailEventKind, events_of
from app.sync.claims import Claimed, Database, Source

# Those that waited for these emails, which are through.
# By their ids, and not over all that wait.
LET_NEXT_GO = """
UPDATE incoming_emails AS next SET sync_next_attempt_at = now()
WHERE id = ANY (ARRAY(
    SELECT first.id FROM incoming_emails AS through CROSS JOIN LATERAL (
        SELECT id FROM incoming_emails AS later
        WHERE (later.sync_status = 'pending') IS TRUE
            AND later.zendesk_ticket_id = through.zendesk_ticket_id
            AND (later.received_at, later.id) > (through.received_at, through.id)
        ORDER BY later.received_at, later.id
        LIMIT 1
    ) AS first
    WHERE through.id = ANY (ARRAY(SELECT unnest($1::uuid[]))) AND through.zendesk_ticket_id <> ''
)) AND (sync_status = 'pending' AND sync_retry_count = 0 AND sync_next_attempt_at > now()) IS TRUE
"""


def _extend(table: Source) -> str:
    return f"""
WITH held AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS held (id, token)
),
free AS MATERIALIZED (
    SELECT row.id FROM {table} AS row JOIN held ON row.id = held.id AND row.sync_token = held.token
    WHERE row.id = ANY (ARRAY(SELECT id FROM held))
    ORDER BY row.id
    FOR UPDATE OF row SKIP LOCKED
),
extended AS (
    UPDATE {table} AS row SET sync_lease_expires_at = clock_timestamp() + $3
    WHERE row.id = ANY (ARRAY(SELECT id FROM free))
    RETURNING row.id
)
SELECT row.sync_token, row.id IN (SELECT id FROM extended) AS is_extended FROM {table} AS row
JOIN held ON row.id = held.id AND row.sync_token = held.token
WHERE row.id = ANY (ARRAY(SELECT id FROM held))
"""  # noqa: S608 - a constant


# What became of a try, for the email's story.
_HISTORY = {
    Source.EMAILS: events_of(
        "ended JOIN result ON id = row_id AND ended.token = result.token WHERE told IS NOT NULL",
        EmailEventKind.DELIVERY,
        "told",
        at="at",
        worker="$9",
        attempt="CASE WHEN counts OR outcome <> 'pending' THEN tries END",
    ),
    # The email may be gone.
    Source.EVENTS: "SELECT",
}


def _record(table: Source) -> str:
    """How tries end. A row that somebody has locked holds up no other; all are locked in one order,
    by their ids. Of two tries of one row only the token tells which is whose. Where there is a
    newer result, or the email was erased, the try only ends."""
    is_mine = "row.sync_status = 'pending' AND row.sync_version = version"
    return f"""
WITH result AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::interval[], $7::bool[],
        $8::text[]
    ) AS result (row_id, token, version, outcome, error, delay, counts, told)
),
free AS MATERIALIZED (
    SELECT row.id, token, clock_timestamp() AS at
    FROM {table} AS row JOIN result ON row.id = row_id AND row.sync_token = token
    WHERE row.id = ANY (ARRAY(SELECT row_id FROM result))
    ORDER BY row.id
    FOR UPDATE OF row SKIP LOCKED
),
ended AS (
    UPDATE {table} AS row
    SET sync_token = NULL, sync_lease_expires_at = NULL,
        sync_status = CASE WHEN {is_mine} AND outcome <> 'pending' THEN outcome
            ELSE row.sync_status END,
        sync_error = CASE WHEN {is_mine} AND (outcome <> 'pending' OR error IS NOT NULL)
            THEN error ELSE row.sync_error END,
        sync_retry_count = row.sync_retry_count + ({is_mine} AND counts)::int,
        sync_next_attempt_at = CASE WHEN NOT ({is_mine}) THEN row.sync_next_attempt_at
            WHEN outcome <> 'pending' THEN NULL
            ELSE COALESCE(free.at + delay, row.sync_next_attempt_at) END,
        synced_at = CASE WHEN outcome = 'synced' THEN free.at ELSE row.synced_at END
    FROM free JOIN result ON free.id = row_id AND free.token = result.token
    WHERE row.id = ANY (ARRAY(SELECT id FROM free)) AND row.id = free.id
    RETURNING row.id, free.token, free.at, row.sync_retry_count + (outcome = 'synced')::int AS tries
),
history AS ({_HISTORY[table]})
SELECT token, true AS is_recorded FROM ended
UNION ALL
SELECT token, false
FROM {table} AS row JOIN result ON row.id = row_id AND row.sync_token = token
WHERE row.id = ANY (ARRAY(SELECT row_id FROM result EXCEPT SELECT id FROM ended))
"""  # noqa: S608 - a constant


EXTEND = {source: _extend(source) for source in Source}
RECORD = {source: _record(source) for source in Source}

# Before their contents or their rows go. A request that is under way comes to its end first. Whose
# every request failed is told, too: one may have arrived, whose answer did not.
TELL_ERASED = """
INSERT INTO sync_events (kind, email, sync_version, sync_next_attempt_at)
SELECT 'email.erased', id, sync_version, GREATEST(now(), sync_lease_expires_at)
FROM incoming_emails
WHERE id = ANY($1::uuid[]) AND (sync_status <> 'not_applicable' OR synced_at IS NOT NULL
    OR sync_retry_count > 0 OR sync_token IS NOT NULL)
ORDER BY id
"""

# What its receiver has of it, or is sent right now, has the file still. One that was never asked
# for has no file to take back, nor has one whose job goes on: its end asks anew. What was called
# off may have reached it, so it gets a number of its own, for whoever has it delivered after all.
WITHOUT_FILE = f"""
WITH changed AS (
    UPDATE incoming_emails
    SET sync_version = sync_version + 1,
        sync_status = CASE WHEN sync_status = 'not_applicable' THEN sync_status
            ELSE 'pending' END,
        sync_next_attempt_at = CASE WHEN sync_status <> 'not_applicable' THEN now() END,
        sync_retry_count = CASE WHEN sync_status = 'not_applicable' THEN sync_retry_count
            ELSE 0 END,
        sync_error = CASE WHEN sync_status = 'not_applicable' THEN sync_error END
    WHERE id = $1 AND (processing_status IN ('completed', 'failed')) IS TRUE
        AND (sync_status IN ('pending', 'failed')
            OR (sync_status = 'synced' AND synced_at >= completed_at)
            OR (sync_status = 'not_applicable' AND (synced_at >= completed_at
                OR sync_retry_count > 0 OR sync_token IS NOT NULL)))
    RETURNING id, sync_status
),
history AS ({
    events_of(
        "changed WHERE sync_status = 'pending'",
        EmailEventKind.DELIVERY,
        "'to be delivered again: a file of it was removed'",
    )
})
SELECT FROM changed
"""  # noqa: S608 - a constant


class Outcome(StrEnum):
    """How a try ended; the `sync_status` that it leads to."""

    SYNCED = "synced"
    FAILED = "failed"
    LATER = "pending"


@attrs.frozen
class Result:
    """The end of a try."""

    claimed: Claimed
    outcome: Outcome
    error: str | None = None
    delay: timedelta | None = None
    """Before the next try. None: it is due as before."""
    counts: bool = False
    """Whether it is one of the tries that an email has."""
    told: str | None = None
    """What stands of it in the email's story. None: nothing."""


class End(Enum):
    """What became of a result."""

    RECORDED = auto()
    LOST = auto()
    """The claim stood no longer."""
    BUSY = auto()
    """Another transaction has the row locked, or the database is away: to be recorded again."""


async def extend(
    database: Database, claims: Collection[Claimed], *, lease: timedelta
) -> dict[UUID, bool]:
    """Keep claims alive.

    Returns:
        The tokens of those that still stand, and whether they were extended: what somebody else has
        locked keeps the lease that it had.
    """
    standing: dict[UUID, bool] = {}
    for source in Source:
        mine = [one for one in claims if one.source is source]
        if mine:
            rows = await database.fetch(
                EXTEND[source], [one.id for one in mine], [one.token for one in mine], lease
            )
            standing |= {row["sync_token"]: row["is_extended"] for row in rows}
    return standing


async def record(
    database: Database, source: Source, results: Sequence[Result], *, worker: str
) -> list[End]:
    """pending -> synced, failed, or pending for a later try.

    Args:
        worker: who tried.

    Returns:
        What became of each, in their order.
    """
    rows = await database.fetch(
        RECORD[source],
        [result.claimed.id for result in results],
        [result.claimed.token for result in results],
        [result.claimed.version for result in results],
        [result.outcome.value for result in results],
        [result.error for result in results],
        [result.delay for result in results],
        [result.counts for result in results],
        [result.told for result in results],
        *((worker,) if source is Source.EMAILS else ()),
    )
    ends = {row["token"]: End.RECORDED if row["is_recorded"] else End.BUSY for row in rows}
    return [ends.get(result.claimed.token, End.LOST) for result in results]


async def let_next_go(database: Database, email_ids: Collection[UUID]) -> None:
    """pending -> pending, due now: of the same tickets, what waited for these emails."""
    await database.execute(LET_NEXT_GO, email_ids)


async def tell_erased(database: Database, email_ids: Collection[UUID]) -> int:
    """(none) -> pending: have the receiver told that emails are erased of which it was told, is
    being told, or may have been told. To be called in the transaction that erases them, and before
    it does so.

    Returns:
        How many it is told of.
    """
    tag = await database.execute(TELL_ERASED, email_ids)
    return int(tag.removeprefix("INSERT 0 "))


async def deliver_without_file(database: Database, email_id: UUID) -> None:
    """pending, synced, failed -> pending, with a number of its own: the receiver gets what was
    delivered once more, without a file that is erased. What was called off gets the number alone.
    To be called in the transaction that erases it."""
    await database.execute(WITHOUT_FILE, email_id)
