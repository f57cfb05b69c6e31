"""What events change besides bringing emails: files join their email, and what Zendesk erased is
erased here, for good.

Events come in any order, and each may come twice. A file that is earlier than its email waits for
it; what is erased leaves its ids behind, so that no replay brings it back.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import structlog

from app.intake.email_row import EmailRow
from app.intake.events import Event
from app.intake.row_writer import Connection
from app.jobs.transitions import operators
from app.models.entries import noted
from app.models.fit import to_fit_json
from app.models.zendesk_event import ErasureKind

log = structlog.get_logger(__name__)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# A file whose email has not come by then belongs to a comment that is none.
WAITS_AT_MOST = timedelta(days=7)
# How long a write that began before an erasure may take to end after it.
SETTLED = timedelta(minutes=2)

# Emails and files of one ticket are joined one after the other, or each could miss the other.
LOCK_TICKET = "SELECT pg_advisory_xact_lock(hashtextextended('mailroom ticket ' || $1, 0))"

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
FORGET_WAITING_OF_COMMENT = """
DELETE FROM waiting_attachments WHERE ticket_id = $1 AND account_id = $2 AND comment_id = $3
RETURNING attachment
"""

KEEP_ERASURE = """
INSERT INTO zendesk_erasures
    (event_key, kind, account_id, ticket_id, comment_id, attachment_id, happened_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
"""
SELECT_ERASURES = """
SELECT kind, account_id, ticket_id, comment_id, attachment_id, happened_at
FROM zendesk_erasures WHERE ticket_id = ANY($1::text[])
"""
SELECT_LATE_ERASURES = """
SELECT * FROM zendesk_erasures WHERE created_at > now() - $1::interval
"""
RESTORE = """
DELETE FROM zendesk_erasures
WHERE ticket_id = $1 AND account_id = $2 AND kind = 'trashed_ticket' AND happened_at <= $3
"""
IS_RESTORED = """
SELECT EXISTS (
    SELECT FROM zendesk_erasures
    WHERE ticket_id = $1 AND account_id = $2 AND kind = 'restored_ticket' AND happened_at >= $3
)
"""
# An email of a trigger does not tell its account, and an installation has one. Nor does it tell
# when Zendesk sent it: it was when it came, at the latest.
FIND_OF_TICKET = """
SELECT id, zendesk_account_id, zendesk_comment_id, attachment_urls, erased_at,
    CASE WHEN zendesk_account_id IS NULL THEN created_at ELSE received_at END AS sent_at
FROM incoming_emails
WHERE zendesk_ticket_id = $1 AND (zendesk_account_id IS NULL OR zendesk_account_id = $2)
"""
FORGET_WAITING_OF_TICKET = """
DELETE FROM waiting_attachments
WHERE ticket_id = $1 AND account_id = $2 AND ($3::timestamptz IS NULL OR created_at <= $3)
"""
REMOVE_FILES = f"""
UPDATE incoming_emails
SET attachment_urls = $2::json, updated_at = now(), original_body = NULL,
    raw_payload = CASE WHEN zendesk_account_id IS NULL THEN NULL ELSE raw_payload END,
    attempt_errors = {noted("$3::text")}
WHERE id = $1
"""  # noqa: S608 - a constant
# An email that nobody could read has one.
DELETE_COPIES = """
DELETE FROM quarantined_webhooks AS copy USING incoming_emails AS email
WHERE email.id = ANY($1::uuid[]) AND (
    copy.id = email.id OR copy.headers ->> 'x-zendesk-webhook-signature' = email.delivery_signature
)
"""
TELL = f"""
UPDATE incoming_emails
SET attempt_errors = {noted("$2::text")}
WHERE id = ANY($1::uuid[]) AND NOT attempt_errors @> jsonb_build_array(
    jsonb_build_object('error', $2::text))
"""  # noqa: S608 - a constant


async def keep_attachment(pool: Pool, event: Event, key: str) -> UUID | None:
    """Join a file to its email, or keep it until that comes.

    A file that was linked while its ticket was made joins the email that made it, which does not
    tell its comment; if an email comes that does tell it, the file goes there.

    Returns:
        The email; None where it has not come, or the file was erased.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_TICKET, event.ticket_id)
        for erasure in await connection.fetch(SELECT_ERASURES, [event.ticket_id]):
            if _covers_file(erasure, event):
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


async def waiting_files(pool: Pool, event: Event) -> list[dict[str, Any]]:
    """The files that came before this email."""
    rows = await pool.fetch(
        SELECT_WAITING, event.ticket_id, event.account_id or "", event.comment_id
    )
    return [json.loads(row["attachment"]) for row in rows]


async def join_waiting(pool: Pool, event: Event, email_id: UUID) -> None:
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
        files = [json.loads(row["attachment"]) for row in rows]
        if email is not None:
            await _add_files(connection, email, files)
        if event.comment_id is not None:
            told = "a file left it: it belongs to another email of the ticket"
            await _take_away(connection, event.ticket_id, event.account_id, files, told)
        certain = [row for row in rows if row["comment_id"] == (event.comment_id or "")]
        await connection.execute(
            "DELETE FROM waiting_attachments WHERE event_key = ANY($1::text[])",
            [row["event_key"] for row in certain],
        )


async def erase(pool: Pool, event: Event, key: str) -> None:
    """Erase what Zendesk erased, and remember it."""
    erasure = {
        "kind": str(event.erasure),
        "account_id": event.account_id or "",
        "ticket_id": event.ticket_id,
        "comment_id": event.comment_id,
        "attachment_id": event.attachment_id,
        "happened_at": event.happened_at,
    }
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_TICKET, event.ticket_id)
        if event.erasure is ErasureKind.TRASHED_TICKET and await connection.fetchval(
            IS_RESTORED, event.ticket_id, event.account_id or "", event.happened_at
        ):
            return
        await connection.execute(KEEP_ERASURE, key, *erasure.values())
        await _apply(connection, erasure, event)


async def restore(pool: Pool, event: Event, key: str) -> None:
    """A ticket came back from the trash: its further emails are taken again, and that it was thrown
    away before may come late or again."""
    of = (event.account_id or "", event.ticket_id)
    kind = str(ErasureKind.RESTORED_TICKET)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_TICKET, event.ticket_id)
        await connection.execute(KEEP_ERASURE, key, kind, *of, None, None, event.happened_at)
        await connection.execute(
            RESTORE, event.ticket_id, event.account_id or "", event.happened_at
        )


async def erasures_of(connection: Connection, ticket_ids: Sequence[str]) -> list["asyncpg.Record"]:
    """What was erased of some tickets."""
    return await connection.fetch(SELECT_ERASURES, ticket_ids)


def is_erased(erasures: Sequence["asyncpg.Record"], row: EmailRow) -> bool:
    """Whether an email is one that Zendesk erased."""
    return any(_covers(erasure, row) for erasure in erasures)


async def settle(pool: Pool) -> None:
    """Do what a write that began before an erasure, and ended after it, may have undone; and forget
    files that nobody fetches."""
    for late in await pool.fetch(SELECT_LATE_ERASURES, SETTLED):
        if late["kind"] not in (ErasureKind.TRASHED_TICKET, ErasureKind.RESTORED_TICKET):
            async with pool.acquire() as connection, connection.transaction():
                await _apply(connection, dict(late), None)
    async with pool.acquire() as connection, connection.transaction():
        await _forget_waiting(connection)


async def _forget_waiting(connection: Connection) -> None:
    dropped = 0
    for row in await connection.fetch(FORGET_WAITING, WAITS_AT_MOST):
        file = _identity(json.loads(row["attachment"]))
        emails = await connection.fetch(FIND_OF_TICKET, row["ticket_id"], row["account_id"])
        if any(file in map(_identity, _files(email)) for email in emails):
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


async def _apply(connection: Connection, erasure: dict[str, Any], event: Event | None) -> None:
    emails = await connection.fetch(FIND_OF_TICKET, erasure["ticket_id"], erasure["account_id"])
    match erasure["kind"]:
        case ErasureKind.TICKET | ErasureKind.TRASHED_TICKET:
            for_good = erasure["kind"] == ErasureKind.TICKET
            what = "erased its ticket for good" if for_good else "put its ticket into the trash"
            # What came afterwards is of a ticket that was restored: the event is late or repeated.
            gone = emails if for_good else _sent_before(emails, erasure)
            await _erase(connection, gone, f"erased, because Zendesk {what}", whole=for_good)
            await connection.execute(
                FORGET_WAITING_OF_TICKET,
                erasure["ticket_id"],
                erasure["account_id"],
                None if for_good else erasure["happened_at"],
            )
        case ErasureKind.COMMENT:
            await _erase_comment(connection, emails, erasure, event)
            of = (erasure["ticket_id"], erasure["account_id"])
            waiting = await connection.fetch(
                FORGET_WAITING_OF_COMMENT, *of, erasure["comment_id"] or ""
            )
            files = [json.loads(row["attachment"]) for row in waiting]
            told = "a file was removed, because Zendesk redacted its comment"
            await _take_away(connection, of[0], of[1] or None, files, told)
        case ErasureKind.ATTACHMENT:
            await _erase_file(connection, emails, erasure, event)


def _sent_before(
    emails: Sequence["asyncpg.Record"], erasure: dict[str, Any]
) -> list["asyncpg.Record"]:
    return [email for email in emails if email["sent_at"] <= erasure["happened_at"]]


async def _erase(
    connection: Connection, emails: Sequence["asyncpg.Record"], told: str, *, whole: bool = False
) -> None:
    ids = [email["id"] for email in emails if email["erased_at"] is None]
    if ids:
        await connection.execute(DELETE_COPIES, ids)
        await operators.erase_content(connection, ids, told=told, whole=whole)
        for email_id in ids:
            log.info("erased", email_id=str(email_id), by="Zendesk")


async def _erase_comment(
    connection: Connection,
    emails: Sequence["asyncpg.Record"],
    erasure: dict[str, Any],
    event: Event | None,
) -> None:
    comment_id = erasure["comment_id"]
    told = "erased, because Zendesk redacted it"
    exact = [email for email in emails if comment_id and email["zendesk_comment_id"] == comment_id]
    if exact:
        await _erase(connection, exact, told)
        return
    # A trigger does not tell the comment, nor does the event of a new ticket. Where one email alone
    # can be meant it is; of several nobody knows which, though one of them be erased already.
    candidates = [
        email for email in _sent_before(emails, erasure) if email["zendesk_comment_id"] is None
    ]
    if event is None or event.is_by_staff:
        return
    if len(candidates) == 1:
        await _erase(connection, candidates, told)
        return
    left = [email["id"] for email in candidates if email["erased_at"] is None]
    if not left:
        return
    await connection.execute(
        TELL,
        left,
        f"Zendesk redacted comment {comment_id} of this ticket: see whether it is this email, and "
        "erase it then",
    )
    log.warning("redaction_not_clear", emails=len(left))


async def _erase_file(
    connection: Connection,
    emails: Sequence["asyncpg.Record"],
    erasure: dict[str, Any],
    event: Event | None,
) -> None:
    named = (event and event.attachment) or {}
    for email in emails:
        if email["erased_at"] is not None:
            continue
        if email["zendesk_comment_id"] not in (None, erasure["comment_id"]):
            continue
        files = _files(email)
        left = [item for item in files if not _is_file(item, erasure["attachment_id"], named)]
        if len(left) < len(files):
            await connection.execute(
                REMOVE_FILES,
                email["id"],
                json.dumps(left) if left else None,
                "a file was removed, because Zendesk redacted it",
            )
    await connection.execute(
        "DELETE FROM waiting_attachments WHERE ticket_id = $1 AND comment_id = $2"
        " AND attachment ->> 'id' = $3",
        erasure["ticket_id"],
        erasure["comment_id"] or "",
        erasure["attachment_id"],
    )


def _is_file(item: Any, attachment_id: str | None, named: dict[str, Any]) -> bool:
    """Whether a stored file is the one that an event names, by its id, or else by its address or
    name."""
    if not isinstance(item, dict):
        return False
    if item.get("id") is not None and attachment_id is not None:
        return str(item["id"]) == attachment_id
    url, name = named.get("content_url"), named.get("filename") or named.get("file_name")
    return (url is not None and item.get("url") == url) or (
        name is not None and item.get("filename") == name
    )


def _covers(erasure: "asyncpg.Record", row: EmailRow) -> bool:
    if erasure["ticket_id"] != row.zendesk_ticket_id:
        return False
    if row.zendesk_account_id is not None and row.zendesk_account_id != erasure["account_id"]:
        return False
    match erasure["kind"]:
        case ErasureKind.TICKET:
            return True
        case ErasureKind.TRASHED_TICKET:
            # What Zendesk sent afterwards is of a ticket that was restored.
            sent_at: datetime = row.sent_at
            return bool(sent_at <= erasure["happened_at"])
        case ErasureKind.COMMENT:
            comment_id = row.zendesk_comment_id
            return comment_id is not None and comment_id == erasure["comment_id"]
        case _:
            return False


def _covers_file(erasure: "asyncpg.Record", event: Event) -> bool:
    if erasure["account_id"] != (event.account_id or ""):
        return False
    match erasure["kind"]:
        case ErasureKind.TICKET:
            return True
        case ErasureKind.TRASHED_TICKET:
            return bool(event.happened_at <= erasure["happened_at"])
        case ErasureKind.COMMENT:
            return erasure["comment_id"] is not None and erasure["comment_id"] == event.comment_id
        case ErasureKind.RESTORED_TICKET:
            return False
        case _:
            attachment_id = erasure["attachment_id"]
            return attachment_id is not None and attachment_id == event.attachment_id


async def _add_files(
    connection: Connection, email: "asyncpg.Record", files: Sequence[dict[str, Any]]
) -> None:
    there = _files(email)
    known = {_identity(item) for item in there}
    new = [item for item in files if _identity(item) not in known]
    if new:
        told = f"a file joined it: {len(new)} of Zendesk's events"
        await connection.execute(SET_FILES, email["id"], to_fit_json([*there, *new]), told)


async def _take_away(
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
        there = _files(email)
        left = [item for item in there if _identity(item) not in gone]
        if len(left) < len(there):
            await connection.execute(
                SET_FILES, email["id"], to_fit_json(left) if left else None, told
            )


def _files(email: "asyncpg.Record") -> list[Any]:
    files = json.loads(email["attachment_urls"]) if email["attachment_urls"] else []
    return files if isinstance(files, list) else []


def _identity(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("id") or item.get("url"))
    return str(item)
