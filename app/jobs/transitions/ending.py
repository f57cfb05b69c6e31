"""processing -> completed, queued or failed: how the claimer of an email ends its claim."""

from datetime import timedelta

from app.jobs.transitions.common import Claim, Database, changed, ended, locked
from app.metrics import COMPLETIONS, FAILURES, HAND_BACKS, RETRIES, FailureKind

STOPPED = "handed back untried: its worker stopped"

COMPLETE = """
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = now(), processed_at = now(),
    extracted_data = $3, cleaned_body = $4, processing_error = NULL,
    lease_expires_at = NULL, updated_at = now()
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""

# The entry keeps the retry's moment, because postponing a suspect moves the column's on.
RETRY_LATER = f"""
{locked("id = $1 AND processing_status = 'processing' AND started_at = $2")}
UPDATE incoming_emails AS email
SET processing_status = 'queued', queued_at = NULL, next_attempt_at = held.at + $4,
    retry_count = retry_count + 1, lease_expires_at = NULL, updated_at = held.at,
    attempt_errors = {ended("$3::text", more=", 'next_attempt_at', held.at + $4")}
FROM held WHERE email.id = held.id
"""  # noqa: S608 - a constant

FAIL = f"""
UPDATE incoming_emails
SET processing_status = 'failed', completed_at = now(), processed_at = now(),
    processing_error = $3, lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {ended("$3::text")}
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""  # noqa: S608 - a constant

# It is no attempt, so the claim is not counted.
HAND_BACK = f"""
UPDATE incoming_emails
SET processing_status = 'queued', queued_at = NULL, claims = claims - 1,
    lease_expires_at = NULL, updated_at = now(),
    attempt_errors = {ended("$3::text", attempt="0")}
WHERE id = $1 AND processing_status = 'processing' AND started_at = $2
"""  # noqa: S608 - a constant


async def complete(
    database: Database, claim: Claim, *, extracted_data: str | None, cleaned_body: str | None
) -> bool:
    """processing -> completed. `extracted_data` is JSON text.

    Returns:
        Whether the claim still stood.
    """
    stood = changed(
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
    stood = changed(
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
    stood = changed(await database.execute(FAIL, claim.email_id, claim.started_at, error))
    FAILURES.labels(kind).inc(stood)
    return stood


async def hand_back(database: Database, claim: Claim, *, reason: str = STOPPED) -> bool:
    """processing -> queued without an attempt, by a worker that cannot go on.

    Returns:
        Whether the claim still stood.
    """
    stood = changed(await database.execute(HAND_BACK, claim.email_id, claim.started_at, reason))
    HAND_BACKS.inc(stood)
    return stood
