"""What Zendesk erased is erased here, for good.

Events come in any order, and each may come twice; what is erased leaves its ids behind, so that no
replay brings it back.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import structlog

from app.attachments import removing
from app.intake.events import Event
from app.intake.row_writer import Connection
from app.intake.waiting_files import (
    FIND_OF_TICKET,
    LOCK_TICKET,
    TELL,
    files_of,
    forget_waiting,
    take_away,
)
from app.jobs.transitions import erasing
from app.jobs.transitions.erasing import Erased
from app.models.entries import noted
from app.models.erasure import ErasedBy
from app.models.fit import read_json
from app.models.zendesk_event import ErasureKind
from app.sync.transitions import deliver_without_file

log = structlog.get_logger(__name__)

# How long a write that began before an erasure may take to end after it.
SETTLED = timedelta(minutes=2)

KEEP_ERASURE = """
INSERT INTO zendesk_erasures
    (event_key, kind, account_id, ticket_id, comment_id, attachment_id, happened_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
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
FORGET_WAITING_OF_COMMENT = """
DELETE FROM waiting_attachments WHERE ticket_id = $1 AND account_id = $2 AND comment_id = $3
RETURNING attachment
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

BY = "Zendesk"


async def erase(pool: "asyncpg.Pool[asyncpg.Record]", event: Event, key: str) -> None:
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


async def restore(pool: "asyncpg.Pool[asyncpg.Record]", event: Event, key: str) -> None:
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


async def settle(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Do what a write that began before an erasure, and ended after it, may have undone; and forget
    files that nobody fetches."""
    for late in await pool.fetch(SELECT_LATE_ERASURES, SETTLED):
        if late["kind"] not in (ErasureKind.TRASHED_TICKET, ErasureKind.RESTORED_TICKET):
            async with pool.acquire() as connection, connection.transaction():
                await _apply(connection, dict(late), None)
    async with pool.acquire() as connection, connection.transaction():
        await forget_waiting(connection)


async def _apply(connection: Connection, erasure: dict[str, Any], event: Event | None) -> None:
    emails = await connection.fetch(FIND_OF_TICKET, erasure["ticket_id"], erasure["account_id"])
    match erasure["kind"]:
        case ErasureKind.TICKET | ErasureKind.TRASHED_TICKET:
            for_good = erasure["kind"] == ErasureKind.TICKET
            what = "erased its ticket for good" if for_good else "put its ticket into the trash"
            # What came afterwards is of a ticket that was restored: the event is late or repeated.
            gone = emails if for_good else _sent_before(emails, erasure)
            told = f"erased, because Zendesk {what}"
            await _erase(connection, gone, told, of=ErasedBy.TICKET, whole=for_good)
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
            files = [read_json(row["attachment"]) for row in waiting]
            told = "a file was removed, because Zendesk redacted its comment"
            await take_away(connection, of[0], of[1] or None, files, told)
        case ErasureKind.ATTACHMENT:
            await _erase_file(connection, emails, erasure, event)


def _sent_before(
    emails: Sequence["asyncpg.Record"], erasure: dict[str, Any]
) -> list["asyncpg.Record"]:
    return [email for email in emails if email["sent_at"] <= erasure["happened_at"]]


async def _erase(
    connection: Connection,
    emails: Sequence["asyncpg.Record"],
    told: str,
    *,
    of: ErasedBy,
    whole: bool = False,
) -> None:
    # What went into the trash before it was deleted for good has its sender and subject still.
    ids = [
        email["id"]
        for email in emails
        if email["erased_at"] is None or (whole and email["is_of_somebody"])
    ]
    if ids:
        erased = await erasing.empty(connection, ids, told=told, whole=whole)
        await erasing.record(connection, of, by=BY, erased=erased)
        for email_id in ids:
            log.info("erased", email_id=str(email_id), by=BY)


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
        await _erase(connection, exact, told, of=ErasedBy.COMMENT)
        return
    # A trigger does not tell the comment, nor does the event of a new ticket. Where one email alone
    # can be meant it is; of several nobody knows which, though one of them be erased already.
    candidates = [
        email for email in _sent_before(emails, erasure) if email["zendesk_comment_id"] is None
    ]
    if event is None or event.is_by_staff:
        return
    if len(candidates) == 1:
        await _erase(connection, candidates, told, of=ErasedBy.COMMENT)
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
        files = files_of(email)
        left = [item for item in files if not _is_file(item, erasure["attachment_id"], named)]
        if len(left) < len(files):
            await connection.execute(
                REMOVE_FILES,
                email["id"],
                json.dumps(left) if left else None,
                "a file was removed, because Zendesk redacted it",
            )
            await removing.erase_unlisted(connection, email["id"], left)
            await deliver_without_file(connection, email["id"])
            erased = Erased(files=len(files) - len(left))
            await erasing.record(connection, ErasedBy.COMMENT, by=BY, erased=erased)
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
