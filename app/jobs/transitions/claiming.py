"""queued -> processing: how a worker takes an email, or leaves it for later."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum, auto
from uuid import UUID

import asyncpg
import attrs

from app.jobs.claimed_email import columns_of_claim
from app.jobs.transitions.common import (
    DUE_AT,
    IS_PAUSED,
    IS_QUEUED,
    VANISHED,
    WITH_MESSAGE,
    Claim,
    Database,
    changed,
    locked,
)
from app.telemetry.metrics import CLAIMS


class Refusal(Enum):
    """Why there is no claim."""

    NO_WORK = auto()
    """Finished, held by another worker, not yet due, or erased."""

    SUSPECT = auto()
    """A worker of it vanished, and the claim was not to take such an email."""

    BUSY = auto()
    """Another transaction has it locked, or changed it meanwhile: it is to be tried again."""

    PAUSED = auto()
    """Processing is paused: it is to be given back."""

    NO_ROOM = auto()
    """The bodies of those before it are all that there is room for."""


REFUSALS = {
    None: Refusal.NO_WORK,
    "suspect": Refusal.SUSPECT,
    "busy": Refusal.BUSY,
    "paused": Refusal.PAUSED,
    "no room": Refusal.NO_ROOM,
}


# A token is the claimer's own. Where its statement comes a second time, because the answer to the
# first was lost, it finds the claim that it made. The worker's name is asked for as well, since
# older versions take a claim over without a look at that token.
MINE = """(processing_status = 'processing'
    AND claim_token IS NOT DISTINCT FROM token AND claimed_by IS NOT DISTINCT FROM $4)"""
LOST = f"(processing_status = 'processing' AND NOT {MINE})"
CLAIMABLE = f"""(
    (processing_status IN ('received', 'queued') AND {DUE_AT} <= clock_timestamp())
    OR (processing_status = 'processing' AND $6
        AND COALESCE(lease_expires_at, '-infinity') < clock_timestamp())
)"""
# A desk of an older version, which retries an email, resets its claims alone.
SUSPECT = "((lost_claims > 0 AND claims > 0) OR processing_status = 'processing')"
# These functions read the lengths alone, and not the texts.
BYTES = """(
    coalesce(octet_length(raw_body_html), 0) + coalesce(octet_length(raw_body_text), 0)
    + CASE WHEN $8 THEN coalesce(octet_length(original_body), 0)
        + coalesce(pg_column_size(raw_payload), 0) ELSE 0 END
)::bigint"""

# A row that somebody has locked holds up no other. All are locked in one order, by their ids, and
# found by an array of these, whatever the statistics are of; no index serves a condition that `IS
# TRUE`. Leases begin when the rows are locked: now() is the start of the transaction. `started_at`
# has to grow even where the clock was set back. Losing this commit in a crash of PostgreSQL costs
# nothing (the emails are then still queued), so it need not wait for the disk.
#
# What is not claimed is told apart in the end: by then it may be in other hands, and is busy.
CLAIM = f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (email_id, token, place)
),
relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
pause AS MATERIALIZED (SELECT {IS_PAUSED} AS is_paused),
free AS MATERIALIZED (
    SELECT id, place, {BYTES} AS bytes
    FROM incoming_emails AS email JOIN asked ON id = email_id
    WHERE id = ANY (ARRAY(SELECT email_id FROM asked))
        AND ({MINE} OR (
            {CLAIMABLE} AND ($5 OR NOT {SUSPECT}) AND NOT (SELECT is_paused FROM pause)
        )) IS TRUE
    ORDER BY id
    FOR UPDATE OF email SKIP LOCKED
),
filled AS MATERIALIZED (
    SELECT id, bytes, sum(bytes) OVER (ORDER BY place) AS filled_bytes, clock_timestamp() AS at
    FROM free
),
claimed AS (
    UPDATE incoming_emails AS email
    SET processing_status = 'processing',
        started_at = CASE WHEN {MINE} THEN started_at
            ELSE GREATEST(at, started_at + interval '1 microsecond') END,
        lease_expires_at = at + $3,
        claims = CASE WHEN {MINE} THEN claims ELSE claims + 1 END,
        lost_claims = CASE WHEN {LOST} THEN lost_claims + 1 WHEN claims = 0 THEN 0
            ELSE lost_claims END,
        claimed_by = $4,
        claim_token = token,
        next_attempt_at = NULL,
        updated_at = at,
        attempt_errors = CASE WHEN {LOST} THEN {VANISHED} ELSE attempt_errors END
    FROM relaxed, filled JOIN asked ON filled.id = email_id
    WHERE email.id = ANY (ARRAY(SELECT id FROM filled)) AND email.id = filled.id
        AND (filled_bytes <= $7 OR filled_bytes = bytes)
    RETURNING bytes, {columns_of_claim("$8")}
)
SELECT refused.why, claimed.*
FROM asked
LEFT JOIN claimed ON claimed.id = asked.email_id
LEFT JOIN (
    SELECT id, CASE
        WHEN NOT {MINE} AND (SELECT is_paused FROM pause) THEN 'paused'
        WHEN NOT $5 AND NOT {MINE} AND {SUSPECT} THEN 'suspect'
        WHEN id IN (SELECT id FROM free) THEN 'no room'
        ELSE 'busy' END AS why
    FROM incoming_emails JOIN asked ON id = email_id
    WHERE id = ANY (ARRAY(SELECT email_id FROM asked EXCEPT SELECT id FROM claimed))
        AND ({MINE} OR {CLAIMABLE}) IS TRUE
) AS refused ON refused.id = asked.email_id
ORDER BY asked.place
"""  # noqa: S608 - a constant

# Where no place became free, so that other workers may have them.
GIVE_BACK = f"""
WITH free AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE id = ANY (ARRAY(SELECT unnest($1::uuid[]))) AND ({WITH_MESSAGE}) IS TRUE
    ORDER BY id
    FOR UPDATE SKIP LOCKED
)
UPDATE incoming_emails SET queued_at = NULL, updated_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM free))
RETURNING id
"""  # noqa: S608 - a constant

# A message that comes twice must not shorten the pause before a retry.
POSTPONE_SUSPECT = f"""
{locked(f"id = $1 AND {IS_QUEUED} AND {SUSPECT}")}
UPDATE incoming_emails AS email
SET queued_at = NULL, next_attempt_at = GREATEST(next_attempt_at, held.at + $2),
    updated_at = held.at
FROM held WHERE email.id = held.id
"""  # noqa: S608 - a constant


FIRST_COLUMN = 2


@attrs.frozen
class Claimed:
    """An email that was just claimed."""

    claim: Claim
    columns: "asyncpg.Record"
    """Those of the email from FIRST_COLUMN on."""
    body_bytes: int
    has_late: bool = True
    """Whether `claimed_email.LATE` are among them."""


async def claim(
    database: Database,
    wanted: Mapping[UUID, UUID],
    *,
    lease: timedelta,
    worker: str,
    suspects: bool = True,
    takes_over: bool = True,
    most_bytes: int,
    with_late: bool = True,
) -> list[Claimed | Refusal]:
    """received, queued -> processing; processing -> processing where the lease ran out.

    Args:
        wanted: ids of emails, and for each a token by which the claim is known where it is made a
            second time, since the answer to the first may be lost: then it is the same claim, with
            a lease that begins anew.
        suspects: claim them even if a worker of them vanished before.
        takes_over: claim them even from a worker whose lease ran out.
        most_bytes: of bodies; the first of those that can be claimed is, however large it is.
        with_late: return all columns, `claimed_email.LATE` as well.

    Returns:
        For each in its order the claim and the columns of the email, or why there is none.
    """
    rows = await database.fetch(
        CLAIM,
        list(wanted),
        list(wanted.values()),
        lease,
        worker,
        suspects,
        takes_over,
        most_bytes,
        with_late,
    )
    made = [_claimed(row, with_late) for row in rows]
    CLAIMS.inc(sum(isinstance(one, Claimed) for one in made))
    return made


def _claimed(row: asyncpg.Record, with_late: bool) -> Claimed | Refusal:
    if row["id"] is None:
        return REFUSALS[row["why"]]
    claim = Claim(row["id"], row["started_at"], row["retry_count"], row["lost_claims"])
    return Claimed(claim, row, row["bytes"], with_late)


async def give_back(database: Database, email_ids: Sequence[UUID]) -> list[UUID]:
    """queued -> queued, to be sent to the broker again at once.

    Returns:
        What was changed: not what has no message or is locked.
    """
    rows = await database.fetch(GIVE_BACK, email_ids)
    return [row["id"] for row in rows]


async def postpone_suspect(database: Database, email_id: UUID, *, delay: timedelta) -> bool:
    """queued -> queued, to be sent to the broker again after `delay`, if a worker of it vanished.

    Returns:
        Whether it was one.
    """
    return changed(await database.execute(POSTPONE_SUSPECT, email_id, delay))
