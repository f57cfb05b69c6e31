"""What an erasure of Zendesk's covers: the one place that tells it, of emails and of files."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from app.intake.email_row import EmailRow
from app.intake.events import Event
from app.intake.row_writer import Connection
from app.models.zendesk_event import ErasureKind

SELECT_ERASURES = """
SELECT kind, account_id, ticket_id, comment_id, attachment_id, happened_at
FROM zendesk_erasures WHERE ticket_id = ANY($1::text[])
"""


async def erasures_of(
    connection: Connection, ticket_ids: Sequence[str | None]
) -> list["asyncpg.Record"]:
    """What was erased of some tickets."""
    return await connection.fetch(SELECT_ERASURES, ticket_ids)


def is_erased(erasures: Sequence["asyncpg.Record"], row: EmailRow) -> bool:
    """Whether an email is one that Zendesk erased."""
    return any(_covers(erasure, row) for erasure in erasures)


def covers_file(erasure: "asyncpg.Record", event: Event) -> bool:
    """Whether a file that an event brings is one that Zendesk erased."""
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
