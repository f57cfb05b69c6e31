"""Whatever state -> erased: the one path by which emails lose their content, or are removed whole.

`mailroom erase`, the API and Zendesk's events end here. A row that is removed leaves tombstones, by
which the Intake knows it again; one that is emptied knows its keys itself. What belongs to an email
elsewhere goes in the same transaction: its copy in the quarantine, its files, its history; and the
receiver is told that was told of it. A worker that holds it loses its claim; a message for it does
nothing.
"""

import asyncio
import time
from collections.abc import Collection
from uuid import UUID

import asyncpg
import attrs

from app.attachments import removing
from app.errors import MailroomError
from app.jobs.transitions.common import Database
from app.models.erasure import ARRIVED, ErasedBy, comment_key_sql
from app.models.incoming_email import SyncStatus
from app.search import entries
from app.sync.asking import ERASED
from app.sync.transitions import tell_erased

POLL_SECONDS = 0.02
# Longer than any of the Intake's writes is given.
LONGEST_WRITE_SECONDS = 60.0

_COMMENT = comment_key_sql("zendesk_account_id", "zendesk_ticket_id", "zendesk_comment_id")
_ARRIVED = f"""'{ARRIVED} ' || zendesk_ticket_id || ' ' || id
    || ' ' || floor(extract(epoch FROM email.created_at))::bigint"""
# In the order of the keys, or two who erase the same could wait for each other.
MARK = f"""
INSERT INTO tombstones (key, email, erasure)
SELECT DISTINCT ON (key) key, email.id, $2 FROM incoming_emails AS email
CROSS JOIN LATERAL unnest(
    ARRAY[idempotency_key, delivery_signature, {_COMMENT}, 'email ' || id, {_ARRIVED}]
) AS key
WHERE id = ANY($1::uuid[]) AND key IS NOT NULL
ORDER BY key
ON CONFLICT (key) DO NOTHING
RETURNING key
"""  # noqa: S608 - a constant
# The Intake's INSERT alone holds both: it writes emails and has looked for tombstones. It has these
# locks before its snapshot, so whichever does not see a tombstone that is committed is among them.
WRITERS = """
SELECT virtualtransaction AS writer FROM pg_locks
WHERE locktype = 'relation' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (relation, mode) IN (
        ('incoming_emails'::regclass, 'RowExclusiveLock'),
        ('tombstones'::regclass, 'AccessShareLock')
    )
GROUP BY virtualtransaction HAVING count(DISTINCT relation) = 2
"""
LOCK = """
SELECT sync_status FROM incoming_emails WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE
"""
# An email that nobody could read has one, which a retry would store again.
DELETE_COPIES = """
DELETE FROM quarantined_webhooks AS copy USING incoming_emails AS email
WHERE email.id = ANY($1::uuid[]) AND (
    copy.id = email.id OR copy.headers ->> 'x-zendesk-webhook-signature' = email.delivery_signature
)
"""
DELETE_WAITING = """
DELETE FROM waiting_attachments AS file USING incoming_emails AS email
WHERE email.id = ANY($1::uuid[]) AND file.ticket_id = email.zendesk_ticket_id
    AND file.account_id = coalesce(email.zendesk_account_id, '')
    AND coalesce(file.comment_id = email.zendesk_comment_id, file.is_of_opening)
"""
DELETE_ENTRIES = "DELETE FROM email_events WHERE email = ANY($1::uuid[])"
REMOVE = "DELETE FROM incoming_emails WHERE id = ANY($1::uuid[])"
# Of what was emptied before, the subject or the sender may be there still.
IS_OF_SOMEBODY = "(from_email <> '' OR from_name IS NOT NULL OR COALESCE(subject, '') <> '')"
# What is derived of the content goes too, errors included, which may quote it.
EMPTY = f"""
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = COALESCE(completed_at, now()),
    raw_body_html = NULL, raw_body_text = NULL, raw_payload = NULL, original_body = NULL,
    attachment_urls = NULL, cleaned_body = NULL, extracted_data = NULL, processing_error = NULL,
    next_attempt_at = NULL, lease_expires_at = NULL, {ERASED},
    subject = CASE WHEN $3 THEN '' ELSE subject END,
    from_email = CASE WHEN $3 THEN '' ELSE from_email END,
    from_name = CASE WHEN $3 THEN NULL ELSE from_name END,
    erased_at = now(), updated_at = now(),
    attempt_errors = jsonb_build_array(jsonb_build_object(
        'at', now(), 'attempt', 0, 'error', $2::text))
WHERE id = ANY($1::uuid[]) AND (erased_at IS NULL OR ($3 AND {IS_OF_SOMEBODY}))
"""  # noqa: S608 - a constant
RECORD = """
INSERT INTO erasures (kind, asked_by, emails, files, entries, deliveries, refused,
    waiting_files, ended_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now())
"""


class StillWritingError(MailroomError):
    """Emails are being written that may be the erased ones again; nothing was removed."""


@attrs.frozen
class Erased:
    """How much is gone, as `app.models.erasure.Erasure` names it."""

    emails: int = 0
    files: int = 0
    entries: int = 0
    deliveries: int = 0
    refused: int = 0
    waiting_files: int = 0

    def __add__(self, other: "Erased") -> "Erased":
        return Erased(*map(sum, zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


async def mark(database: Database, email_ids: Collection[UUID], erasure_id: UUID) -> bool:
    """Set tombstones for emails that are to be removed, in a transaction before that. Then
    `settle_writers` has to be waited for, whoever has set them: who did may have waited in vain.

    Returns:
        Whether some are new.
    """
    return bool(await database.fetch(MARK, email_ids, erasure_id))


async def settle_writers(database: Database) -> None:
    """Wait for the Intake's writes that began before the tombstones were committed: what they see
    no tombstone of has to find the email itself there.

    Raises:
        StillWritingError: one of them takes longer than any may.
    """
    deadline = time.monotonic() + LONGEST_WRITE_SECONDS
    first = {row["writer"] for row in await database.fetch(WRITERS)}
    while first:
        if time.monotonic() > deadline:
            raise StillWritingError(
                "a session has been writing an email for a minute and does not end: see which in "
                "pg_stat_activity, end it, and erase again"
            )
        await asyncio.sleep(POLL_SECONDS)
        first &= {row["writer"] for row in await database.fetch(WRITERS)}


async def remove(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
    email_ids: Collection[UUID],
    erasure_id: UUID,
) -> Erased | None:
    """Remove emails whole, in a transaction of the caller's. They have tombstones, and the writers
    were waited for.

    Returns:
        What is gone; None where an email got another key meanwhile, and has to be marked again.
    """
    deliveries = await _lock(connection, email_ids)
    if await mark(connection, email_ids, erasure_id):
        return None
    belongings = await _remove_belongings(connection, email_ids)
    return belongings + Erased(
        deliveries=deliveries,
        waiting_files=_count(await connection.execute(DELETE_WAITING, email_ids)),
        emails=_count(await connection.execute(REMOVE, email_ids)),
    )


async def empty(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
    email_ids: Collection[UUID],
    *,
    told: str,
    whole: bool,
) -> Erased:
    """Leave rows with nothing of what the sender wrote, in a transaction of the caller's.

    Args:
        told: why; stands in the story.
        whole: the subject and the sender go as well.
    """
    deliveries = await _lock(connection, email_ids)
    belongings = await _remove_belongings(connection, email_ids)
    emptied = _count(await connection.execute(EMPTY, email_ids, told, whole))
    await entries.write_anew(connection, email_ids)
    return belongings + Erased(deliveries=deliveries, emails=emptied)


async def record(database: Database, kind: ErasedBy, *, by: str, erased: Erased) -> None:
    """Keep how much an erasure was that is over already, and that no criterion is kept of."""
    if erased != Erased():
        await database.execute(RECORD, kind.value, by, *attrs.astuple(erased))


async def _lock(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", email_ids: Collection[UUID]
) -> int:
    """By a statement of its own: those that follow see what whoever had the emails locked before
    has done. Returns how many of them were to be delivered."""
    rows = await connection.fetch(LOCK, email_ids)
    return sum(row["sync_status"] == SyncStatus.PENDING for row in rows)


async def _remove_belongings(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", email_ids: Collection[UUID]
) -> Erased:
    await tell_erased(connection, email_ids)
    return Erased(
        refused=_count(await connection.execute(DELETE_COPIES, email_ids)),
        files=await removing.erase(connection, email_ids),
        entries=_count(await connection.execute(DELETE_ENTRIES, email_ids)),
    )


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
