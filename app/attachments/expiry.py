"""kept -> skipped, when a file is old enough: its bytes leave the store, its row says why.

The bytes go as those of an erased email do, unless another file has the same.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from app.attachments.reasons import Reason
from app.attachments.transitions import Database

# A file whose email is in work, or is still to be delivered with its files, stays. Looked up one by
# one: for an EXISTS the planner might read all emails.
_FREE = """COALESCE((
    SELECT email.processing_status IN ('completed', 'failed') AND email.sync_status <> 'pending'
    FROM incoming_emails AS email WHERE email.id = file.email
), false)"""
# By ix_email_attachments_state.
PAGE = f"""
SELECT id, ended_at AS at, true AS is_due, {_FREE} AS is_free
FROM email_attachments AS file
WHERE state = 'kept' AND ended_at >= $1 AND (ended_at, id) > ($1, $2) AND ended_at < $3
ORDER BY ended_at, id LIMIT $4
"""  # noqa: S608 - a constant
COUNT = f"""
SELECT count(*) FILTER (WHERE is_free) AS free, count(*) FILTER (WHERE NOT is_free) AS held
FROM (
    SELECT {_FREE} AS is_free FROM email_attachments AS file
    WHERE state = 'kept' AND ended_at < $1
) AS due
"""  # noqa: S608 - a constant
EXPIRE = f"""
WITH due AS MATERIALIZED (
    SELECT id, sha256 FROM email_attachments AS file
    WHERE id = ANY($1::uuid[]) AND state = 'kept' AND ended_at < $2 AND {_FREE}
    ORDER BY id
    FOR UPDATE SKIP LOCKED
),
expired AS (
    UPDATE email_attachments AS file
    SET state = 'skipped', reason = '{Reason.EXPIRED}', detail = NULL, ended_at = now(),
        sha256 = NULL, size = NULL, storage_key = NULL
    WHERE id = ANY (ARRAY(SELECT id FROM due))
    RETURNING id
),
bytes_gone AS (
    INSERT INTO attachment_erasures (sha256, asked_at)
    SELECT sha256, clock_timestamp() FROM due WHERE sha256 IS NOT NULL
    GROUP BY sha256 ORDER BY sha256
    ON CONFLICT (sha256) DO UPDATE SET asked_at = clock_timestamp()
)
SELECT id FROM expired
"""  # noqa: S608 - a constant


async def expire(database: Database, file_ids: Sequence[UUID], before: datetime) -> set[UUID]:
    """Let go of files that were fetched before a moment. Returns which: not those that are locked
    or wanted again."""
    rows = await database.fetch(EXPIRE, file_ids, before)
    return {row["id"] for row in rows}
