"""queued -> processing: how a worker takes an email, or leaves it for later."""

from datetime import timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID, uuid4

from app.jobs.transitions.common import DUE_AT, VANISHED, Claim, Database, changed, locked
from app.metrics import CLAIMS


class Refusal(Enum):
    """Why there is no claim."""

    NO_WORK = auto()
    """Finished, held by another worker, not yet due, or erased."""

    SUSPECT = auto()
    """A worker of it vanished, and the claim was not to take such an email."""


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
{locked(f"id = $1 AND ({MINE} OR ({CLAIMABLE} AND ($5 OR NOT {SUSPECT})))")},
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
{locked(f"id = $1 AND processing_status = 'queued' AND {SUSPECT}")}
UPDATE incoming_emails AS email
SET queued_at = NULL, next_attempt_at = GREATEST(next_attempt_at, held.at + $2),
    updated_at = held.at
FROM held WHERE email.id = held.id
"""  # noqa: S608 - a constant


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
    return changed(await database.execute(POSTPONE_SUSPECT, email_id, delay))
