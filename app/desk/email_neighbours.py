"""The emails around one: of its ticket, of its sender, and before and after it in the list."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from app.jobs.transitions.common import Database
from app.models.incoming_email import ProcessingStatus

SHOWN = 8

# By the index of the ticket or sender; or, where very many are of one, by that of the list, from
# the email outwards.
_ONE_WAY = """
(
    SELECT id, subject, processing_status, received_at FROM incoming_emails
    WHERE {which} AND (received_at, id) {comparison} ($1::timestamptz, $2::uuid)
    ORDER BY received_at {direction}, id {direction} LIMIT $4
)
"""


def _around(which: str) -> str:
    before = _ONE_WAY.format(which=which, comparison="<", direction="DESC")
    after = _ONE_WAY.format(which=which, comparison=">", direction="ASC")
    return f"{before} UNION ALL {after} ORDER BY received_at DESC, id DESC"


OF_TICKET = _around("zendesk_ticket_id = $3")
OF_SENDER = _around("lower(from_email) = lower($3)")
# Of the ticket, found by its index: what was sent twice, or came by two ways.
SAME = """
SELECT other.id, other.subject, other.processing_status, other.received_at
FROM (
    SELECT * FROM incoming_emails WHERE zendesk_ticket_id = $2
    ORDER BY received_at DESC, id DESC LIMIT $3
) AS other
JOIN incoming_emails AS email ON email.id = $1
WHERE other.id <> email.id AND lower(other.from_email) = lower(email.from_email)
    AND other.subject = email.subject AND other.raw_body_text IS NOT DISTINCT FROM
        email.raw_body_text AND other.raw_body_html IS NOT DISTINCT FROM email.raw_body_html
    AND COALESCE(email.raw_body_text, email.raw_body_html) IS NOT NULL
ORDER BY other.received_at DESC LIMIT $4
"""
COMPARED = 200
NEWER = """
SELECT id FROM incoming_emails WHERE (received_at, id) > ($1::timestamptz, $2::uuid)
ORDER BY received_at, id LIMIT 1
"""
OLDER = """
SELECT id FROM incoming_emails WHERE (received_at, id) < ($1::timestamptz, $2::uuid)
ORDER BY received_at DESC, id DESC LIMIT 1
"""


@attrs.frozen
class Neighbour:
    """An email beside the one that is looked at."""

    id: UUID
    subject: str
    status: ProcessingStatus
    received_at: datetime


@attrs.frozen
class Neighbours:
    """What stands around an email."""

    of_ticket: list[Neighbour]
    """The newest first."""
    of_sender: list[Neighbour]
    same: list[Neighbour]
    """Of the ticket, with the same sender, subject and text."""
    newer: UUID | None
    older: UUID | None


async def find_neighbours(database: Database, row: dict[str, Any]) -> Neighbours:
    """The emails around the one of this row."""
    place = (row["received_at"], row["id"])
    return Neighbours(
        of_ticket=await _list(database, OF_TICKET, place, row["zendesk_ticket_id"]),
        of_sender=await _list(database, OF_SENDER, place, row["from_email"]),
        same=_made(
            await database.fetch(SAME, row["id"], row["zendesk_ticket_id"], COMPARED, SHOWN)
        ),
        newer=await database.fetchval(NEWER, *place),
        older=await database.fetchval(OLDER, *place),
    )


async def _list(
    database: Database, statement: str, place: tuple[datetime, UUID], value: str
) -> list[Neighbour]:
    if not value:
        return []
    return _made(await database.fetch(statement, *place, value, SHOWN // 2))


def _made(rows: Sequence[Any]) -> list[Neighbour]:
    return [
        Neighbour(
            row["id"],
            row["subject"],
            ProcessingStatus(row["processing_status"]),
            row["received_at"],
        )
        for row in rows
    ]
