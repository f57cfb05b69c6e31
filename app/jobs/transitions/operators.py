"""failed -> queued or completed, by an operator."""

from collections.abc import Collection
from uuid import UUID

from app.jobs.transitions.common import Database, changed
from app.models.entries import noted
from app.sync.asking import NOTHING, DeliveredEnds, asked

_RETRYABLE = """processing_status = ANY($2::text[]) AND erased_at IS NULL
    AND bodies_removed_at IS NULL"""
# Due from now on, so that very many of them do not go before the retries that were due already.
_RETRIED = f"""
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, completed_at = NULL, processed_at = NULL,
    processing_error = NULL, next_attempt_at = now(), retry_count = 0, claims = 0,
    lost_claims = 0, updated_at = now(), attempt_errors = {noted("'retried by ' || $3::text")}
WHERE"""  # noqa: S608 - a constant
RETRY_BY_OPERATOR = f"{_RETRIED} id = ANY($1::uuid[]) AND {_RETRYABLE}"

# `processed_at` stays: it is the end of the handler's last run.
_TOLD = "CASE WHEN $4 THEN 'discarded by ' ELSE 'completed by ' END || $2::text || ': ' || $3::text"
_FAILED = "(processing_status = 'failed') IS TRUE"
_SETTLED = f"""
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = now(), processing_error = NULL,
    extracted_data = CASE WHEN $4 THEN NULL ELSE extracted_data END, updated_at = now(),
    attempt_errors = {noted(_TOLD)}, {asked("$5::boolean", "now()")}
WHERE"""  # noqa: S608 - a constant
SETTLE = f"{_SETTLED} id = $1 AND {_FAILED}"


def _of_many(update: str, condition: str) -> str:
    """The change of many. A row that somebody has locked holds up no other; all are locked in one
    order, by their ids."""
    return f"""
WITH free AS MATERIALIZED (
    SELECT id FROM incoming_emails WHERE id = ANY($1::uuid[]) AND ({condition}) IS TRUE
    ORDER BY id
    FOR UPDATE SKIP LOCKED
)
{update} id = ANY (ARRAY(SELECT id FROM free))
RETURNING id
"""  # noqa: S608 - of constants


RETRY_MANY = _of_many(_RETRIED, _RETRYABLE)
SETTLE_MANY = _of_many(_SETTLED, _FAILED)


async def retry(database: Database, email_id: UUID, *, by: str, force: bool = False) -> bool:
    """failed -> queued, by an operator; completed -> queued too, where forced.

    Not what was erased, or has lost its texts because of its age.

    Returns:
        Whether the email was in a state that may be retried.
    """
    states = ["failed", "completed"] if force else ["failed"]
    return changed(await database.execute(RETRY_BY_OPERATOR, [email_id], states, by))


async def retry_many(database: Database, email_ids: Collection[UUID], *, by: str) -> list[UUID]:
    """failed -> queued, by an operator.

    Returns:
        Which were failed and are queued now: not what is locked.
    """
    rows = await database.fetch(RETRY_MANY, email_ids, ["failed"], by)
    return [row["id"] for row in rows]


async def settle(
    database: Database,
    email_id: UUID,
    *,
    by: str,
    reason: str,
    discard: bool = False,
    delivered: DeliveredEnds = NOTHING,
) -> bool:
    """failed -> completed, by an operator who dealt with it elsewhere.

    Args:
        discard: nothing came of it: what an earlier run found is removed.
        delivered: which ends are delivered.

    Returns:
        Whether it was failed.
    """
    arguments = (email_id, by, reason, discard, delivered.completed)
    return changed(await database.execute(SETTLE, *arguments))


async def settle_many(
    database: Database,
    email_ids: Collection[UUID],
    *,
    by: str,
    reason: str,
    discard: bool = False,
    delivered: DeliveredEnds = NOTHING,
) -> list[UUID]:
    """failed -> completed, as `settle` has it.

    Returns:
        Which were failed and are completed now: not what is locked.
    """
    arguments = (email_ids, by, reason, discard, delivered.completed)
    return [row["id"] for row in await database.fetch(SETTLE_MANY, *arguments)]
