"""Every change of `processing_status` after the Intake, and the only SQL that makes one.

Each is one guarded UPDATE (compare and set): it names the states it may leave, and the claimer's
ones also name its fencing token, so a worker that lost its claim changes nothing. A function
returns what it changed; nothing changed is an answer, not an error. What changed is counted here,
so that the metrics agree with the rows.
"""

import itertools
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

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
    claims: int

    @property
    def lost_claims(self) -> int:
        """How many earlier claims ended without a result: their worker vanished."""
        return self.claims - 1 - self.retry_count


# What `queued` means is told by `queued_at`: a message for the email was given to the broker then,
# or, where it is null, has to be given once the next attempt is due.
WITH_MESSAGE = "processing_status = 'queued' AND queued_at IS NOT NULL"
WITHOUT_MESSAGE = "processing_status = 'queued' AND queued_at IS NULL"
DUE_AT = "COALESCE(next_attempt_at, '-infinity')"

# Both kinds share the room that the broker has: the fresh ones, and those that are sent again. Each
# may have its half, and what it does not need is the other's. The depth bounds what waits in the
# broker, so that order of receipt is kept by the database and a lost message is noticed soon. Of
# those sent again, what was brought back goes first, then retries as they fell due.
#
# SKIP LOCKED keeps Dispatchers apart. What is taken is MATERIALIZED: as a plain subquery of the
# UPDATE it may be run once for each row, each time it passes over what the UPDATE has changed
# already, and so takes more than its LIMIT. Which plan PostgreSQL prefers depends on its
# statistics.
QUEUE = f"""
WITH room AS MATERIALIZED (
    SELECT places, (places + $3::int) / 2 AS share
    FROM (
        SELECT LEAST($1, $2 - (
            SELECT count(*) FROM (
                SELECT 1 FROM incoming_emails WHERE {WITH_MESSAGE} LIMIT $2
            ) AS waiting
        )) AS places
    ) AS counted
),
again AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE {WITHOUT_MESSAGE} AND {DUE_AT} <= now()
    ORDER BY {DUE_AT}, received_at
    LIMIT (SELECT places FROM room) - (
        SELECT count(*) FROM (
            SELECT 1 FROM incoming_emails
            WHERE processing_status = 'received' LIMIT (SELECT share FROM room)
        ) AS needed
    )
    FOR UPDATE SKIP LOCKED
),
fresh AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE processing_status = 'received'
    ORDER BY received_at
    LIMIT (SELECT places FROM room) - (SELECT count(*) FROM again)
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails AS email
SET processing_status = 'queued', queued_at = now(), updated_at = now()
FROM (
    SELECT id, false AS is_fresh FROM again UNION ALL SELECT id, true FROM fresh
) AS taken
WHERE email.id = taken.id
RETURNING email.id, email.queued_at, taken.is_fresh, {DUE_AT} AS due_at, email.received_at
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
    return f"""attempt_errors || jsonb_build_array(jsonb_build_object(
        'at', now(), 'attempt', {attempt}, 'started_at', started_at, 'error', {error},
        'worker', claimed_by{more}))"""


VANISHED = _ended("'its worker vanished'")

# The token has to grow even where the clock was set back. Losing this commit in a crash of
# PostgreSQL costs nothing (the email is then still queued), so it need not wait for the disk.
CLAIM = f"""
UPDATE incoming_emails
SET processing_status = 'processing',
    started_at = GREATEST(clock_timestamp(), started_at + interval '1 microsecond'),
    lease_expires_at = now() + $2,
    claims = claims + 1,
    claimed_by = $3,
    next_attempt_at = NULL,
    updated_at = now(),
    attempt_errors = CASE WHEN processing_status = 'processing' THEN {VANISHED}
        ELSE attempt_errors END
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS relaxed
WHERE id = $1
AND (
    (processing_status IN ('received', 'queued')
        AND (next_attempt_at IS NULL OR next_attempt_at <= now()))
    OR (processing_status = 'processing'
        AND (lease_expires_at IS NULL OR lease_expires_at < now()))
)
AND (claims <= retry_count OR $4)
RETURNING incoming_emails.*
"""  # noqa: S608 - a constant

# More claims than attempts: a worker of it vanished. A message that comes twice must not shorten
# the pause before a retry.
POSTPONE_SUSPECT = """
UPDATE incoming_emails
SET queued_at = NULL, next_attempt_at = GREATEST(next_attempt_at, now() + $2), updated_at = now()
WHERE id = $1 AND processing_status = 'queued' AND claims > retry_count
"""

COMPLETE = """
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = now(), processed_at = now(),
    extracted_data = $3, cleaned_body = $4, processing_error = NULL,
    lease_expires_at = NULL, updated_at = now()
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""

# The entry keeps the retry's moment, because postponing a suspect moves the column's on.
RETRY_LATER = f"""
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, next_attempt_at = now() + $4,
    retry_count = retry_count + 1, lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {_ended("$3::text", more=", 'next_attempt_at', now() + $4")}
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""  # noqa: S608 - a constant

FAIL = f"""
UPDATE incoming_emails
SET processing_status = 'failed', completed_at = now(), processed_at = now(),
    processing_error = $3, lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {_ended("$3::text")}
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""  # noqa: S608 - a constant

# Nothing was tried, so the claim is not counted.
HAND_BACK = f"""
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, claims = claims - 1,
    lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {_ended("'handed back untried: its worker stopped'", attempt="0")}
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""  # noqa: S608 - a constant

EXTEND_LEASES = """
UPDATE incoming_emails AS email
SET lease_expires_at = now() + $3
FROM unnest($1::uuid[], $2::timestamptz[]) AS held (id, started_at)
WHERE email.id = held.id AND email.started_at = held.started_at
AND email.processing_status = 'processing'
RETURNING email.id, email.started_at
"""

RESCUE_EXPIRED = f"""
WITH taken AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE processing_status = 'processing'
        AND (lease_expires_at IS NULL OR lease_expires_at < now())
    ORDER BY received_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails AS email
SET processing_status = 'queued', queued_at = NULL, lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {VANISHED}
FROM taken WHERE email.id = taken.id
RETURNING email.id
"""  # noqa: S608 - a constant

MESSAGE_LOST = "its message was lost"

# Messages that are lost one after the other, as where no worker listens, are told once: the row
# must not grow for as long as that lasts.
RESCUE_UNHEARD = f"""
WITH taken AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE processing_status = 'queued' AND queued_at IS NOT NULL
    AND queued_at < now() - $2::interval
    AND ($3 OR queued_at < (
        SELECT max(queued_at) FROM incoming_emails WHERE processing_status = 'processing'
    ))
    ORDER BY received_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails AS email
SET queued_at = NULL, updated_at = now(),
    attempt_errors = CASE WHEN attempt_errors -> -1 ->> 'error' = '{MESSAGE_LOST}'
        THEN attempt_errors
        ELSE attempt_errors || jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', 0, 'error', '{MESSAGE_LOST}'))
        END
FROM taken WHERE email.id = taken.id
RETURNING email.id
"""  # noqa: S608 - a constant

# Due from now on, so that very many of them do not go before the retries that were due already.
RETRY_BY_OPERATOR = """
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, completed_at = NULL, processed_at = NULL,
    processing_error = NULL, next_attempt_at = now(), retry_count = 0, claims = 0,
    updated_at = now(),
    attempt_errors = attempt_errors || jsonb_build_array(jsonb_build_object(
        'at', now(), 'attempt', 0, 'error', 'retried by ' || $3::text))
WHERE id = ANY($1::uuid[]) AND processing_status = ANY($2::text[])
"""

# `processed_at` stays: it is the end of the handler's last run.
SETTLE = """
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = now(), processing_error = NULL,
    extracted_data = CASE WHEN $4 THEN NULL ELSE extracted_data END, updated_at = now(),
    attempt_errors = attempt_errors || jsonb_build_array(jsonb_build_object(
        'at', now(), 'attempt', 0, 'error',
        CASE WHEN $4 THEN 'discarded by ' ELSE 'completed by ' END || $2::text || ': ' || $3::text))
WHERE id = $1 AND processing_status = 'failed'
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
    # UPDATE returns rows in any order.
    fresh = sorted((row for row in rows if row["is_fresh"]), key=lambda row: row["received_at"])
    again = sorted(
        (row for row in rows if not row["is_fresh"]),
        key=lambda row: (row["due_at"], row["received_at"]),
    )
    by_turns = itertools.chain.from_iterable(itertools.zip_longest(fresh, again))
    return [
        Queued(row["id"], row["queued_at"], row["is_fresh"]) for row in by_turns if row is not None
    ]


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
    suspects: bool = True,
) -> tuple[Claim, dict[str, Any]] | None:
    """received, queued -> processing; processing -> processing where the lease ran out.

    Args:
        suspects: claim it even if a worker of it vanished before.

    Returns:
        The claim and the columns of the email; None where it is not to be had: finished, held by
        another worker, not yet due, or erased.
    """
    row = await database.fetchrow(CLAIM, email_id, lease, worker, suspects)
    if row is None:
        return None
    CLAIMS.inc()
    columns = dict(row)
    return Claim(row["id"], row["started_at"], row["retry_count"], row["claims"]), columns


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


async def hand_back(database: Database, claim: Claim) -> bool:
    """processing -> queued without an attempt, by a worker that cannot go on.

    Returns:
        Whether the claim still stood.
    """
    stood = _changed(await database.execute(HAND_BACK, claim.email_id, claim.started_at))
    HAND_BACKS.inc(stood)
    return stood


async def extend_leases(
    database: Database, claims: Collection[Claim], *, lease: timedelta
) -> set[tuple[UUID, datetime]]:
    """Keep claims alive.

    Returns:
        Id and token of each claim that still stands.
    """
    rows = await database.fetch(
        EXTEND_LEASES, [c.email_id for c in claims], [c.started_at for c in claims], lease
    )
    return {(row["id"], row["started_at"]) for row in rows}


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
    """failed -> queued, by an operator; completed -> queued too, where forced.

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


def _changed(tag: str) -> bool:
    return tag == "UPDATE 1"
