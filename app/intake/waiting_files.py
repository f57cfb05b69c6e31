"""Files that came as events of their own: they join their email, or wait for it.

Events come in any order, and each may come twice; a file that is earlier than its email waits.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from app.attachments import enrolling, removing
from app.intake.erasure_rules import covers_file, erasures_of
from app.intake.events import Event
from app.intake.row_writer import Connection
from app.jobs.transitions.erasing import IS_OF_SOMEBODY
from app.models.entries import noted
from app.models.erasure import comment_key
from app.models.fit import read_json, to_fit_json
from app.settings import get_settings
from app.sync.transitions import deliver_without_file

log = structlog.get_logger(__name__)

# A file whose email has not come by then belongs to a comment that is none.
WAITS_AT_MOST = timedelta(days=7)

# Emails and files of one ticket are joined one after the other, or each could miss the other.
LOCK_TICKET = "SELECT pg_advisory_xact_lock(hashtextextended('mailroom ticket ' || $1, 0))"

HAS_TOMBSTONE = "SELECT EXISTS (SELECT FROM tombstones WHERE key = $1)"
FIND_EMAIL = """
SELECT id, zendesk_comment_id, attachment_urls FROM incoming_emails
WHERE zendesk_ticket_id = $1 AND zendesk_account_id IS NOT DISTINCT FROM $2
    AND erased_at IS NULL
    AND (zendesk_comment_id = $3 OR ($4 AND zendesk_comment_id IS NULL))
ORDER BY zendesk_comment_id NULLS LAST, created_at
LIMIT 1
FOR UPDATE
"""
# Emails that a file may have joined though its comment is another.
FIND_GUESSED = """
SELECT id, attachment_urls FROM incoming_emails
WHERE zendesk_ticket_id = $1 AND zendesk_account_id IS NOT DISTINCT FROM $2
    AND zendesk_comment_id IS NULL AND erased_at IS NULL
ORDER BY id
FOR UPDATE
"""
SET_FILES = f"""
UPDATE incoming_emails
SET attachment_urls = $2::json, updated_at = now(),
    attempt_errors = {noted("$3::text")}
WHERE id = $1
"""  # noqa: S608 - a constant
KEEP_WAITING = """
INSERT INTO waiting_attachments
    (event_key, account_id, ticket_id, comment_id, is_of_opening, attachment)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
"""
SELECT_WAITING = """
SELECT event_key, comment_id, attachment FROM waiting_attachments
WHERE ticket_id = $1 AND account_id = $2
    AND (comment_id = $3 OR ($3 IS NULL AND is_of_opening))
ORDER BY created_at
"""
FORGET_WAITING = """
DELETE FROM waiting_attachments WHERE created_at < now() - $1::interval
RETURNING account_id, ticket_id, comment_id, attachment
"""
# An email of a trigger does not tell its account, and an installation has one. Nor does it tell
# when Zendesk sent it: it was when it came, at the latest.
FIND_OF_TICKET = f"""
SELECT id, zendesk_account_id, zendesk_comment_id, attachment_urls, erased_at,
    {IS_OF_SOMEBODY} AS is_of_somebody,
    CASE WHEN zendesk_account_id IS NULL THEN created_at ELSE received_at END AS sent_at
FROM incoming_emails
WHERE zendesk_ticket_id = $1 AND (zendesk_account_id IS NULL OR zendesk_account_id = $2)
"""  # noqa: S608 - a constant
TELL = f"""
UPDATE incoming_emails
SET attempt_errors = {noted("$2::text")}
WHERE id = ANY($1::uuid[]) AND NOT attempt_errors @> jsonb_build_array(
    jsonb_build_object('error', $2::text))
"""  # noqa: S608 - a constant


async def keep_attachment(
    pool: "asyncpg.Pool[asyncpg.Record]", event: Event, key: str
) -> UUID | None:
    """Join a file to its email, or keep it until that comes.

    A file that was linked while its ticket was made joins the email that made it, which does not
    tell its comment; if an email comes that does tell it, the file goes there.

    Returns:
        The email; None where it has not come, or the file was erased.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_TICKET, event.ticket_id)
        for erasure in await erasures_of(connection, [event.ticket_id]):
            if covers_file(erasure, event):
                return None
        key_of_email = comment_key(event.account_id, event.ticket_id or "", event.comment_id)
        if await connection.fetchval(HAS_TOMBSTONE, key_of_email):
            return None
        email = await connection.fetchrow(
            FIND_EMAIL, event.ticket_id, event.account_id, event.comment_id, event.is_of_opening
        )
        if email is not None:
            await _add_files(connection, email, [event.attachment or {}])
            if email["zendesk_comment_id"] == event.comment_id:
                return UUID(str(email["id"]))
        await connection.execute(
            KEEP_WAITING,
            key,
            event.account_id or "",
            event.ticket_id,
            event.comment_id or "",
            event.is_of_opening,
            to_fit_json(event.attachment),
        )
    return UUID(str(email["id"])) if email is not None else None


async def find_waiting(pool: "asyncpg.Pool[asyncpg.Record]", event: Event) -> list[dict[str, Any]]:
    """The files that came before this email."""
    rows = await pool.fetch(
        SELECT_WAITING, event.ticket_id, event.account_id or "", event.comment_id
    )
    return [read_json(row["attachment"]) for row in rows]


async def join_waiting(pool: "asyncpg.Pool[asyncpg.Record]", event: Event, email_id: UUID) -> None:
    """Let no file wait any longer for an email that is stored."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_TICKET, event.ticket_id)
        rows = await connection.fetch(
            SELECT_WAITING, event.ticket_id, event.account_id or "", event.comment_id
        )
        if not rows:
            return
        email = await connection.fetchrow(
            "SELECT id, attachment_urls FROM incoming_emails WHERE id = $1 AND erased_at IS NULL"
            " FOR UPDATE",
            email_id,
        )
        files = [read_json(row["attachment"]) for row in rows]
        if email is not None:
            await _add_files(connection, email, files)
        if event.comment_id is not None:
            told = "a file left it: it belongs to another email of the ticket"
            await take_away(connection, event.ticket_id, event.account_id, files, told)
        certain = [row for row in rows if row["comment_id"] == (event.comment_id or "")]
        await connection.execute(
            "DELETE FROM waiting_attachments WHERE event_key = ANY($1::text[])",
            [row["event_key"] for row in certain],
        )


async def forget_waiting(connection: Connection) -> None:
    """Drop files whose email has not come in time, and tell the emails that they may be of."""
    dropped = 0
    for row in await connection.fetch(FORGET_WAITING, WAITS_AT_MOST):
        file = _identity(read_json(row["attachment"]))
        emails = await connection.fetch(FIND_OF_TICKET, row["ticket_id"], row["account_id"])
        if any(file in map(_identity, files_of(email)) for email in emails):
            continue
        dropped += 1
        unclear = [
            email["id"]
            for email in emails
            if email["erased_at"] is None and email["zendesk_account_id"] is None
        ]
        await connection.execute(
            TELL,
            unclear,
            f"a file of comment {row['comment_id']} of this ticket was dropped, since no email "
            f"named that comment in {WAITS_AT_MOST.days} days: look for it at Zendesk",
        )
    if dropped:
        log.info("waiting_files_dropped", files=dropped)


async def _add_files(
    connection: Connection, email: "asyncpg.Record", files: Sequence[dict[str, Any]]
) -> None:
    there = files_of(email)
    known = {_identity(item) for item in there}
    new = [item for item in files if _identity(item) not in known]
    if new:
        told = f"a file joined it: {len(new)} of Zendesk's events"
        await connection.execute(SET_FILES, email["id"], to_fit_json([*there, *new]), told)
        settings = get_settings()
        if settings.attachments != "off":
            # Its email may have been queued before, and have ended by now.
            await enrolling.enrol(connection, [email["id"]], most=settings.attachment_max_count)


async def take_away(
    connection: Connection,
    ticket_id: str | None,
    account_id: str | None,
    files: Sequence[dict[str, Any]],
    told: str,
) -> None:
    """Take files from emails that they joined by a guess."""
    if not files:
        return
    gone = {_identity(item) for item in files}
    for email in await connection.fetch(FIND_GUESSED, ticket_id, account_id):
        there = files_of(email)
        left = [item for item in there if _identity(item) not in gone]
        if len(left) < len(there):
            await connection.execute(
                SET_FILES, email["id"], to_fit_json(left) if left else None, told
            )
            await removing.erase_unlisted(connection, email["id"], left)
            await deliver_without_file(connection, email["id"])


def files_of(email: "asyncpg.Record") -> list[Any]:
    """The entries of an email's `attachment_urls`."""
    files = read_json(email["attachment_urls"])
    return files if isinstance(files, list) else []


def _identity(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("id") or item.get("url"))
    return str(item)
