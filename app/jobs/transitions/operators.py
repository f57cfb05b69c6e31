"""failed -> queued or completed, by an operator; and whatever state -> erased."""

from collections.abc import Collection
from uuid import UUID

from app.jobs.transitions.common import Database, changed
from app.models.entries import noted

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


async def retry(database: Database, email_id: UUID, *, by: str, force: bool = False) -> bool:
    """failed -> queued, by an operator; completed -> queued too, where forced and not erased.

    Returns:
        Whether the email was in a state that may be retried.
    """
    states = ["failed", "completed"] if force else ["failed"]
    return changed(await database.execute(RETRY_BY_OPERATOR, [email_id], states, by))


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
    return changed(await database.execute(SETTLE, email_id, by, reason, discard))


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
