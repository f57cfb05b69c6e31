"""processing -> completed, queued or failed: how the claimers of emails end their claims, many with
one statement."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum, auto
from typing import Any, TypeAlias

import attrs

from app.jobs.transitions.common import HELD, Claim, Database, ended
from app.sync.asking import NOTHING, DeliveredEnds, asked
from app.telemetry.metrics import COMPLETIONS, FAILURES, HAND_BACKS, RETRIES, FailureKind

STOPPED = "handed back untried: its worker stopped"


@attrs.frozen
class Completion:
    """-> completed."""

    claim: Claim
    extracted_data: str | None
    """JSON text."""
    cleaned_body: str | None


@attrs.frozen
class LaterRetry:
    """-> queued, to be claimed again after `delay`."""

    claim: Claim
    error: str
    delay: timedelta
    kind: FailureKind = FailureKind.ERROR


@attrs.frozen
class Failure:
    """-> failed, for good unless an operator retries it."""

    claim: Claim
    error: str
    kind: FailureKind = FailureKind.ERROR


@attrs.frozen
class HandBack:
    """-> queued without an attempt, by a worker that cannot go on."""

    claim: Claim
    reason: str = STOPPED


Result: TypeAlias = Completion | LaterRetry | Failure | HandBack


class End(Enum):
    """What became of a result."""

    RECORDED = auto()
    LOST = auto()
    """The claim stood no longer."""
    BUSY = auto()
    """Another transaction has the email locked, so nothing was changed: it is to be tried again."""


def _ends(given: Mapping[str, str], sets: str) -> str:
    """The statement that ends claims so.

    It finds its rows by an array of ids, whatever the statistics are of. A row that somebody has
    locked holds up no other. All are locked in one order, by their ids. The clock is read when they
    are, because a pause begins then. A worker may send two results of one email at once, of a claim
    that it lost and of the next: only the token tells them apart.

    Args:
        given: what comes with each claim, and its type in SQL.
        sets: what is set besides, in SQL.
    """
    types = ("uuid", "timestamptz", *given.values())
    arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(types, start=1))
    return f"""
WITH result AS MATERIALIZED (
    SELECT * FROM unnest({arrays}) AS result ({", ".join(("email_id", "token", *given))})
),
free AS MATERIALIZED (
    SELECT email.id, token, clock_timestamp() AS at
    FROM incoming_emails AS email JOIN result ON email.id = email_id AND email.started_at = token
    WHERE email.id = ANY (ARRAY(SELECT email_id FROM result)) AND {HELD}
    ORDER BY email.id
    FOR UPDATE OF email SKIP LOCKED
),
ended AS (
    UPDATE incoming_emails AS email
    SET lease_expires_at = NULL, updated_at = free.at, {sets}
    FROM free JOIN result ON free.id = email_id AND free.token = result.token
    WHERE email.id = ANY (ARRAY(SELECT id FROM free)) AND email.id = free.id
    RETURNING email.id, free.token
)
SELECT id, token, true AS is_recorded FROM ended
UNION ALL
SELECT email.id, token, false
FROM incoming_emails AS email JOIN result ON email.id = email_id AND email.started_at = token
WHERE email.id = ANY (ARRAY(SELECT email_id FROM result EXCEPT SELECT id FROM ended)) AND {HELD}
"""  # noqa: S608 - a constant


COMPLETE = _ends(
    {"data": "json", "body": "text"},
    f"""processing_status = 'completed', completed_at = now(), processed_at = now(),
    extracted_data = data, cleaned_body = body, processing_error = NULL,
    {asked("$5::boolean", "free.at")}""",
)

# The entry keeps the retry's moment, because postponing a suspect moves the column's on.
RETRY_LATER = _ends(
    {"error": "text", "delay": "interval"},
    f"""processing_status = 'queued', queued_at = NULL, next_attempt_at = free.at + delay,
    retry_count = retry_count + 1,
    attempt_errors = {ended("error", more=", 'next_attempt_at', free.at + delay")}""",
)

FAIL = _ends(
    {"error": "text"},
    f"""processing_status = 'failed', completed_at = now(), processed_at = now(),
    processing_error = error, attempt_errors = {ended("error")},
    {asked("$4::boolean", "free.at")}""",
)

# It is no attempt, so the claim is not counted.
HAND_BACK = _ends(
    {"reason": "text"},
    f"""processing_status = 'queued', queued_at = NULL, claims = claims - 1,
    attempt_errors = {ended("reason", attempt="0")}""",
)


async def complete(
    database: Database, completions: Sequence[Completion], *, delivered: DeliveredEnds = NOTHING
) -> list[End]:
    """processing -> completed.

    Args:
        delivered: which ends are delivered.

    Returns:
        What became of each, in their order.
    """
    ends = await _end(
        database,
        COMPLETE,
        completions,
        [completion.extracted_data for completion in completions],
        [completion.cleaned_body for completion in completions],
        delivered.completed,
    )
    COMPLETIONS.inc(ends.count(End.RECORDED))
    return ends


async def retry_later(database: Database, retries: Sequence[LaterRetry]) -> list[End]:
    """processing -> queued, to be claimed again after a while.

    Returns:
        What became of each, in their order.
    """
    ends = await _end(
        database,
        RETRY_LATER,
        retries,
        [retry.error for retry in retries],
        [retry.delay for retry in retries],
    )
    for retry, end in zip(retries, ends, strict=True):
        RETRIES.labels(retry.kind).inc(end is End.RECORDED)
    return ends


async def fail(
    database: Database, failures: Sequence[Failure], *, delivered: DeliveredEnds = NOTHING
) -> list[End]:
    """processing -> failed.

    Args:
        delivered: which ends are delivered.

    Returns:
        What became of each, in their order.
    """
    errors = [failure.error for failure in failures]
    ends = await _end(database, FAIL, failures, errors, delivered.failed)
    for failure, end in zip(failures, ends, strict=True):
        FAILURES.labels(failure.kind).inc(end is End.RECORDED)
    return ends


async def hand_back(database: Database, hand_backs: Sequence[HandBack]) -> list[End]:
    """processing -> queued without an attempt.

    Returns:
        What became of each, in their order.
    """
    ends = await _end(database, HAND_BACK, hand_backs, [back.reason for back in hand_backs])
    HAND_BACKS.inc(ends.count(End.RECORDED))
    return ends


async def _end(
    database: Database, statement: str, results: Sequence[Result], *given: Any
) -> list[End]:
    rows = await database.fetch(
        statement,
        [result.claim.email_id for result in results],
        [result.claim.started_at for result in results],
        *given,
    )
    ends = {
        (row["id"], row["token"]): End.RECORDED if row["is_recorded"] else End.BUSY for row in rows
    }
    claims = [result.claim for result in results]
    return [ends.get((claim.email_id, claim.started_at), End.LOST) for claim in claims]
