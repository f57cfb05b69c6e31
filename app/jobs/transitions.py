"""Every change of `processing_status` after the Intake, and the only SQL that makes one.

Each is one guarded UPDATE (compare and set): it names the states it may leave, and the claimer's
ones also name its fencing token, so a worker that lost its claim changes nothing. A function
returns what it changed; nothing changed is an answer, not an error. What changed is counted here,
so that the metrics agree with the rows.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import attrs

from app.metrics import (
    CLAIMS,
    COMPLETIONS,
    FAILURES,
    HAND_BACKS,
    RESCUES,
    RETRIES,
    FailureKind,
    RescueKind,
)
from app.models.entries import noted, told

Database: TypeAlias = (
    "asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    " | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


@attrs.frozen
class Queued:
    """An email whose message has to go to the broker."""

    email_id: UUID
    queued_at: datetime
    is_fresh: bool
    """Whether it was `received` until now."""


@attrs.frozen
class Claim:
    """The right to finish one email, as long as its token stands.

    `started_at` is the fencing token: each claim of an email has a later one than the last.
    """

    email_id: UUID
    started_at: datetime
    retry_count: int
    lost_claims: int
    """How many earlier claims ended without a result: their worker vanished."""


class Refusal(Enum):
    """Why there is no claim."""

    NO_WORK = auto()
    """Finished, held by another worker, not yet due, or erased."""

    SUSPECT = auto()
    """A worker of it vanished, and the claim was not to take such an email."""


# What `queued` means is told by `queued_at`: a message for the email was given to the broker then,
# or, where it is null, has to be given once the next attempt is due.
WITH_MESSAGE = "processing_status = 'queued' AND queued_at IS NOT NULL"
WITHOUT_MESSAGE = "processing_status = 'queued' AND queued_at IS NULL"
STATE_AND_TIME = "processing_status, received_at"
DUE_AT = "COALESCE(next_attempt_at, '-infinity')"


def _in_state(state: str) -> str:
    """The emails in a state, the oldest first."""
    return f"processing_status BETWEEN '{state}' AND '{state}' ORDER BY {STATE_AND_TIME}"


# Both kinds share the room that the broker has: the fresh ones, and those that are sent again. Each
# may have its half, and what it does not need is the other's. The depth bounds what waits in the
# broker, so that order of receipt is kept by the database and a lost message is noticed soon. Of
# those sent again, what was brought back goes first, then retries as they fell due.
#
# SKIP LOCKED keeps Dispatchers apart. What is taken is MATERIALIZED: as a plain subquery of the
# UPDATE it may be run once for each row, each time it passes over what the UPDATE has changed
# already, and so takes more than its LIMIT. Which plan PostgreSQL prefers depends on its
# statistics, which may be those of a table that was full and is drained by now. Three habits leave
# it no way through the whole table: a state is asked for by BETWEEN, ordered by state and time,
# which only the index on both can serve; an UPDATE finds its rows by an array of ids; and what
# bounds a LIMIT is worked out first.
#
# The order is given here, because an UPDATE returns its rows in any, and so that nothing can fail
# once it has committed: both kinds by turns. No '-infinity' may leave PostgreSQL, since asyncpg
# makes of it a time that compares with no other.
QUEUE = f"""
WITH waiting AS MATERIALIZED (
    SELECT count(*) AS messages FROM (
        SELECT 1 FROM incoming_emails WHERE {WITH_MESSAGE} ORDER BY queued_at LIMIT $2
    ) AS counted
),
room AS MATERIALIZED (SELECT LEAST($1, $2 - messages) AS places FROM waiting),
needed AS MATERIALIZED (
    SELECT count(*) AS places FROM (
        SELECT 1 FROM incoming_emails WHERE {_in_state("received")}
        LIMIT (SELECT (places + $3::int) / 2 FROM room)
    ) AS counted
),
again AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE {WITHOUT_MESSAGE} AND {DUE_AT} <= now()
    ORDER BY {DUE_AT}, received_at
    LIMIT (SELECT room.places - needed.places FROM room, needed)
    FOR UPDATE SKIP LOCKED
),
fresh AS MATERIALIZED (
    SELECT id FROM incoming_emails WHERE {_in_state("received")}
    LIMIT (SELECT places FROM room) - (SELECT count(*) FROM again)
    FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE incoming_emails
    SET processing_status = 'queued', queued_at = now(), updated_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM again UNION ALL SELECT id FROM fresh))
    RETURNING id, queued_at, id = ANY (ARRAY(SELECT id FROM fresh)) AS is_fresh,
        next_attempt_at, received_at
)
SELECT id, queued_at, is_fresh FROM taken
ORDER BY row_number() OVER (
    PARTITION BY is_fresh ORDER BY CASE WHEN NOT is_fresh THEN {DUE_AT} END, received_at
), NOT is_fresh
"""  # noqa: S608 - a constant

UNQUEUE = """
UPDATE incoming_emails AS email
SET processing_status = CASE WHEN unsent.is_fresh THEN 'received' ELSE 'queued' END,
    queued_at = NULL, updated_at = now()
FROM unnest($1::uuid[], $2::timestamptz[], $3::boolean[]) AS unsent (id, queued_at, is_fresh)
WHERE email.id = unsent.id AND email.processing_status = 'queued'
    AND email.queued_at = unsent.queued_at
RETURNING email.id
"""


def _ended(error: str, *, attempt: str = "retry_count + 1", more: str = "") -> str:
    """The attempt errors with that of a claim that ends. `error` and `more` are SQL.

    What stands right of SET sees the row as it was, so worker and moment are those of that claim.
    """
    return told(f"""jsonb_build_object(
        'at', now(), 'attempt', {attempt}, 'started_at', started_at, 'error', {error},
        'worker', claimed_by{more})""")


VANISHED = _ended("'its worker vanished'")


def _locked(condition: str) -> str:
    """What a statement begins with that reads the clock because a lease or a pause begins.

    It may wait for the row longer than a lease lasts. now() is the start of the transaction, and an
    UPDATE alone has worked out its values before it waits.
    """
    return f"""WITH locked AS MATERIALIZED (
    SELECT id FROM incoming_emails WHERE {condition} FOR UPDATE
),
held AS MATERIALIZED (SELECT id, clock_timestamp() AS at FROM locked)"""  # noqa: S608 - a constant


# $4 is the claimer's own token. Where its statement comes a second time, because the answer to the
# first was lost, it finds the claim that it made. The worker's name is asked for as well, since
# older versions take a claim over without a look at that token.
MINE = """(processing_status = 'processing'
    AND claim_token IS NOT DISTINCT FROM $4 AND claimed_by IS NOT DISTINCT FROM $3)"""
LOST = f"(processing_status = 'processing' AND NOT {MINE})"
CLAIMABLE = f"""(
    (processing_status IN ('received', 'queued') AND {DUE_AT} <= clock_timestamp())
    OR (processing_status = 'processing' AND $6
        AND COALESCE(lease_expires_at, '-infinity') < clock_timestamp())
)"""
# A desk of an older version, which retries an email, resets its claims alone.
SUSPECT = "((lost_claims > 0 AND claims > 0) OR processing_status = 'processing')"

# `started_at` has to grow even where the clock was set back. Losing this commit in a crash of
# PostgreSQL costs nothing (the email is then still queued), so it need not wait for the disk.
CLAIM = f"""
{_locked(f"id = $1 AND ({MINE} OR ({CLAIMABLE} AND ($5 OR NOT {SUSPECT})))")},
claimed AS (
    UPDATE incoming_emails AS email
    SET processing_status = 'processing',
        started_at = CASE WHEN {MINE} THEN started_at
            ELSE GREATEST(held.at, started_at + interval '1 microsecond') END,
        lease_expires_at = held.at + $2,
        claims = CASE WHEN {MINE} THEN claims ELSE claims + 1 END,
        lost_claims = CASE WHEN {LOST} THEN lost_claims + 1 WHEN claims = 0 THEN 0
            ELSE lost_claims END,
        claimed_by = $3,
        claim_token = $4,
        next_attempt_at = NULL,
        updated_at = now(),
        attempt_errors = CASE WHEN {LOST} THEN {VANISHED} ELSE attempt_errors END
    FROM held, (SELECT set_config('synchronous_commit', 'off', true)) AS relaxed
    WHERE email.id = held.id
    RETURNING email.*
)
SELECT refused.is_suspect, claimed.*
FROM (
    SELECT EXISTS (
        SELECT FROM incoming_emails WHERE id = $1 AND NOT $5 AND {CLAIMABLE} AND {SUSPECT}
    ) AS is_suspect
) AS refused
LEFT JOIN claimed ON true
"""  # noqa: S608 - a constant

# A message that comes twice must not shorten the pause before a retry.
POSTPONE_SUSPECT = f"""
{_locked(f"id = $1 AND processing_status = 'queued' AND {SUSPECT}")}
UPDATE incoming_emails AS email
SET queued_at = NULL, next_attempt_at = GREATEST(next_attempt_at, held.at + $2),
    updated_at = held.at
FROM held WHERE email.id = held.id
"""  # noqa: S608 - a constant

COMPLETE = """
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = now(), processed_at = now(),
    extracted_data = $3, cleaned_body = $4, processing_error = NULL,
    lease_expires_at = NULL, updated_at = now()
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""

# The entry keeps the retry's moment, because postponing a suspect moves the column's on.
RETRY_LATER = f"""
{_locked("id = $1 AND processing_status = 'processing' AND started_at = $2")}
UPDATE incoming_emails AS email
SET processing_status = 'queued', queued_at = NULL, next_attempt_at = held.at + $4,
    retry_count = retry_count + 1, lease_expires_at = NULL, updated_at = held.at,
    attempt_errors = {_ended("$3::text", more=", 'next_attempt_at', held.at + $4")}
FROM held WHERE email.id = held.id
"""  # noqa: S608 - a constant

FAIL = f"""
UPDATE incoming_emails
SET processing_status = 'failed', completed_at = now(), processed_at = now(),
    processing_error = $3, lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {_ended("$3::text")}
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""  # noqa: S608 - a constant

# It is no attempt, so the claim is not counted.
HAND_BACK = f"""
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, claims = claims - 1,
    lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {_ended("$3::text", attempt="0")}
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""  # noqa: S608 - a constant

# One row that somebody has locked must not keep the others from being extended: it stands, and is
# tried again the next time.
EXTEND_LEASES = """
WITH held AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS held (id, started_at)
),
free AS MATERIALIZED (
    SELECT email.id FROM incoming_emails AS email JOIN held USING (id, started_at)
    WHERE email.processing_status = 'processing'
    ORDER BY email.id
    FOR UPDATE OF email SKIP LOCKED
),
extended AS (
    UPDATE incoming_emails AS email SET lease_expires_at = clock_timestamp() + $3
    FROM free WHERE email.id = free.id
    RETURNING email.id, email.started_at
)
SELECT id, started_at, true AS is_extended FROM extended
UNION ALL
SELECT email.id, email.started_at, false
FROM incoming_emails AS email JOIN held USING (id, started_at)
WHERE email.processing_status = 'processing' AND email.id NOT IN (SELECT id FROM extended)
"""

RESCUE_EXPIRED = f"""
WITH taken AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE COALESCE(lease_expires_at, '-infinity') < now() AND {_in_state("processing")}
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, lease_expires_at = NULL, updated_at = now(),
    lost_claims = lost_claims + 1, attempt_errors = {VANISHED}
WHERE id = ANY (ARRAY(SELECT id FROM taken))
RETURNING id
"""  # noqa: S608 - a constant

STOPPED = "handed back untried: its worker stopped"
MESSAGE_LOST = "its message was lost"

# Messages that are lost one after the other, as where no worker listens, are told once: the row
# must not grow for as long as that lasts.
RESCUE_UNHEARD = f"""
WITH taken AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE {WITH_MESSAGE} AND queued_at < now() - $2::interval
    AND ($3 OR queued_at < (
        SELECT max(queued_at) FROM incoming_emails WHERE processing_status = 'processing'
    ))
    ORDER BY queued_at, received_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails
SET queued_at = NULL, updated_at = now(),
    attempt_errors = CASE WHEN attempt_errors -> -1 ->> 'error' = '{MESSAGE_LOST}'
        THEN attempt_errors
        ELSE {noted(f"'{MESSAGE_LOST}'")}
        END
WHERE id = ANY (ARRAY(SELECT id FROM taken))
RETURNING id
"""  # noqa: S608 - a constant

# Due from now on, so that very many of them do not go before the retries that were due already.
RETRY_BY_OPERATOR = f"""
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, completed_at = NULL, processed_at = NULL,
    processing_error = NULL, next_attempt_at = now(), retry_count = 0, claims = 0,
    lost_claims = 0, updated_at = now(), attempt_errors = {noted("'retried by ' || $3::text")}
WHERE id = ANY($1::uuid[]) AND processing_status = ANY($2::text[]) AND erased_at IS NULL
"""  # noqa: S608 - a constant

# `processed_at` stays: it is the end of the handler's last run.
SETTLED = (
    "CASE WHEN $4 THEN 'discarded by ' ELSE 'completed by ' END || $2::text || ': ' || $3::text"
)
SETTLE = f"""
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = now(), processing_error = NULL,
    extracted_data = CASE WHEN $4 THEN NULL ELSE extracted_data END, updated_at = now(),
    attempt_errors = {noted(SETTLED)}
WHERE id = $1 AND processing_status = 'failed'
"""  # noqa: S608 - a constant


# Whatever its state: a worker that holds it loses its claim, and what it found with it. What is
# derived of the content goes too, errors included, which may quote it.
ERASE_CONTENT = """
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = COALESCE(completed_at, now()),
    raw_body_html = NULL, raw_body_text = NULL, raw_payload = NULL, original_body = NULL,
    attachment_urls = NULL, cleaned_body = NULL, extracted_data = NULL, processing_error = NULL,
    sync_error = NULL, next_attempt_at = NULL, lease_expires_at = NULL,
    subject = CASE WHEN $3 THEN '' ELSE subject END,
    from_email = CASE WHEN $3 THEN '' ELSE from_email END,
    from_name = CASE WHEN $3 THEN NULL ELSE from_name END,
    erased_at = now(), updated_at = now(),
    attempt_errors = jsonb_build_array(jsonb_build_object(
        'at', now(), 'attempt', 0, 'error', $2::text))
WHERE id = ANY($1::uuid[]) AND erased_at IS NULL
"""


async def queue(
    database: Database, *, limit: int, depth: int, odd_to_fresh: bool = True
) -> list[Queued]:
    """received -> queued, the oldest first; queued -> queued for those that were brought back, and
    those whose next attempt is due, as they fell due. Half each, as far as there are so many, while
    fewer than `depth` messages wait in the broker.

    Args:
        odd_to_fresh: the half of one place is that of the fresh ones.

    Returns:
        The emails whose messages have to go to the broker, both kinds by turns.
    """
    rows = await database.fetch(QUEUE, limit, depth, int(odd_to_fresh))
    return [Queued(row["id"], row["queued_at"], row["is_fresh"]) for row in rows]


async def unqueue(database: Database, unsent: Sequence[Queued]) -> list[UUID]:
    """queued -> received, queued: as it was before `queue`, where the message was not sent and
    nobody has taken the email since.

    Returns:
        What was changed.
    """
    rows = await database.fetch(
        UNQUEUE,
        [queued.email_id for queued in unsent],
        [queued.queued_at for queued in unsent],
        [queued.is_fresh for queued in unsent],
    )
    return [row["id"] for row in rows]


async def claim(
    database: Database,
    email_id: UUID,
    *,
    lease: timedelta,
    worker: str,
    token: UUID | None = None,
    suspects: bool = True,
    takes_over: bool = True,
) -> tuple[Claim, dict[str, Any]] | Refusal:
    """received, queued -> processing; processing -> processing where the lease ran out.

    Args:
        token: by which the claim is known where it is made a second time, since the answer to the
            first may be lost: then it is the same claim, with a lease that begins anew.
        suspects: claim it even if a worker of it vanished before.
        takes_over: claim it even from a worker whose lease ran out.

    Returns:
        The claim and the columns of the email, or why there is none.
    """
    row = await database.fetchrow(
        CLAIM, email_id, lease, worker, token or uuid4(), suspects, takes_over
    )
    columns = dict(row or {})
    is_suspect = columns.pop("is_suspect")
    if columns["id"] is None:
        return Refusal.SUSPECT if is_suspect else Refusal.NO_WORK
    CLAIMS.inc()
    return (
        Claim(columns["id"], columns["started_at"], columns["retry_count"], columns["lost_claims"]),
        columns,
    )


async def postpone_suspect(database: Database, email_id: UUID, *, delay: timedelta) -> bool:
    """queued -> queued, to be sent to the broker again after `delay`, if a worker of it vanished.

    Returns:
        Whether it was one.
    """
    return _changed(await database.execute(POSTPONE_SUSPECT, email_id, delay))


async def complete(
    database: Database, claim: Claim, *, extracted_data: str | None, cleaned_body: str | None
) -> bool:
    """processing -> completed. `extracted_data` is JSON text.

    Returns:
        Whether the claim still stood.
    """
    stood = _changed(
        await database.execute(
            COMPLETE, claim.email_id, claim.started_at, extracted_data, cleaned_body
        )
    )
    COMPLETIONS.inc(stood)
    return stood


async def retry_later(
    database: Database,
    claim: Claim,
    *,
    error: str,
    delay: timedelta,
    kind: FailureKind = FailureKind.ERROR,
) -> bool:
    """processing -> queued, to be claimed again after `delay`.

    Returns:
        Whether the claim still stood.
    """
    stood = _changed(
        await database.execute(RETRY_LATER, claim.email_id, claim.started_at, error, delay)
    )
    RETRIES.labels(kind).inc(stood)
    return stood


async def fail(
    database: Database, claim: Claim, *, error: str, kind: FailureKind = FailureKind.ERROR
) -> bool:
    """processing -> failed, for good unless an operator retries it.

    Returns:
        Whether the claim still stood.
    """
    stood = _changed(await database.execute(FAIL, claim.email_id, claim.started_at, error))
    FAILURES.labels(kind).inc(stood)
    return stood


async def hand_back(database: Database, claim: Claim, *, reason: str = STOPPED) -> bool:
    """processing -> queued without an attempt, by a worker that cannot go on.

    Returns:
        Whether the claim still stood.
    """
    stood = _changed(await database.execute(HAND_BACK, claim.email_id, claim.started_at, reason))
    HAND_BACKS.inc(stood)
    return stood


async def extend_leases(
    database: Database, claims: Collection[Claim], *, lease: timedelta
) -> dict[tuple[UUID, datetime], bool]:
    """Keep claims alive.

    Returns:
        Id and token of each claim that still stands, and whether its lease was extended: not where
        another transaction has locked the email.
    """
    rows = await database.fetch(
        EXTEND_LEASES, [c.email_id for c in claims], [c.started_at for c in claims], lease
    )
    return {(row["id"], row["started_at"]): row["is_extended"] for row in rows}


async def rescue_expired(database: Database, *, limit: int) -> list[UUID]:
    """processing -> queued where the lease ran out: the worker vanished."""
    rows = await database.fetch(RESCUE_EXPIRED, limit)
    RESCUES.labels(RescueKind.LEASE).inc(len(rows))
    return [row["id"] for row in rows]


async def rescue_unheard(
    database: Database, *, limit: int, lost_after: timedelta, is_idle: bool
) -> list[UUID]:
    """queued -> queued where no worker came for so long that the message must be lost.

    Args:
        is_idle: a worker has nothing to do. Without one an old message may simply be waiting; it
            is lost if emails that were queued after it are in work already.
    """
    rows = await database.fetch(RESCUE_UNHEARD, limit, lost_after, is_idle)
    RESCUES.labels(RescueKind.MESSAGE).inc(len(rows))
    return [row["id"] for row in rows]


async def retry(database: Database, email_id: UUID, *, by: str, force: bool = False) -> bool:
    """failed -> queued, by an operator; completed -> queued too, where forced and not erased.

    Returns:
        Whether the email was in a state that may be retried.
    """
    states = ["failed", "completed"] if force else ["failed"]
    return _changed(await database.execute(RETRY_BY_OPERATOR, [email_id], states, by))


async def retry_many(database: Database, email_ids: Collection[UUID], *, by: str) -> int:
    """failed -> queued, by an operator.

    Returns:
        How many were failed and are queued now.
    """
    tag = await database.execute(RETRY_BY_OPERATOR, email_ids, ["failed"], by)
    return int(tag.removeprefix("UPDATE "))


async def settle(
    database: Database, email_id: UUID, *, by: str, reason: str, discard: bool = False
) -> bool:
    """failed -> completed, by an operator who dealt with it elsewhere.

    Args:
        discard: nothing came of it: what an earlier run found is removed.

    Returns:
        Whether it was failed.
    """
    return _changed(await database.execute(SETTLE, email_id, by, reason, discard))


async def erase_content(
    database: Database, email_ids: Collection[UUID], *, told: str, whole: bool
) -> int:
    """Any state -> completed, with nothing left of what the sender wrote.

    Args:
        told: why; stands in the story.
        whole: the subject and the sender go as well.

    Returns:
        How many had content.
    """
    tag = await database.execute(ERASE_CONTENT, email_ids, told, whole)
    return int(tag.removeprefix("UPDATE "))


def _changed(tag: str) -> bool:
    return tag == "UPDATE 1"
