"""Webhooks that come after their email was made from its comment: each is a duplicate of it, once.

The first webhook that has a comment's text takes the place of the comment's key in its row. So a
further one with the same text is another email, as it is everywhere else, unless it is the same
delivery again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import attrs

from app.intake.email_row import EmailRow
from app.intake.row_writer import Connection
from app.intake.sameness import (
    CERTAIN,
    Files,
    Likeness,
    Told,
    essences,
    has_place,
    likeness,
)
from app.models.entries import noted
from app.models.fit import read_json

# In one order for all who lock several. The INSERT of webhooks takes no lock: who stores a comment
# has set down its ticket as in question before, and waited for the INSERTs that did not see it.
LOCK_TICKETS = """
SELECT pg_advisory_xact_lock(hashtextextended('mailroom comments ' || ticket, 0))
FROM (SELECT DISTINCT unnest($1::text[]) COLLATE "C" AS ticket ORDER BY 1) AS tickets
"""
SELECT_MADE = """
SELECT id, zendesk_ticket_id, zendesk_comment_id, raw_body_text, raw_body_html, attachment_urls,
    received_at, delivery_signature IS NULL AS is_open, signed_at
FROM incoming_emails
WHERE zendesk_ticket_id = ANY($1::text[]) AND origin = 'backfill' AND erased_at IS NULL
ORDER BY received_at, id
"""
# Without a signature, which is for development only, its own id stands for it.
TAKE_PLACE = f"""
UPDATE incoming_emails
SET delivery_signature = coalesce($2, 'unsigned ' || id),
    idempotency_key = coalesce($3, idempotency_key), signed_at = $4, updated_at = now(),
    attempt_errors = {noted("'its webhook came after all'")}
WHERE id = $1
"""  # noqa: S608 - a constant


# Its keys are those of the email that was made of its comment, from now on. What was told of it
# goes with it: nobody could read it.
REMOVE_UNREADABLE = """
WITH removed AS (
    DELETE FROM incoming_emails
    WHERE id = $1 AND (processing_status = 'failed') IS TRUE
        AND extracted_data::text LIKE '{"unreadable": %'
    RETURNING id
)
DELETE FROM email_events USING removed WHERE email = removed.id
"""


async def find_made(
    connection: Connection, rows: Sequence[EmailRow], unreadable: Mapping[UUID, UUID]
) -> dict[UUID, UUID]:
    """Which of these webhooks' emails were made from comments before, in a transaction of the
    caller's, who has locked their tickets and seen that no row has their keys, but for rows that
    nobody could read so far.

    Args:
        unreadable: such rows, by the ids of those that can be read now; where the email was made
            before, they go.

    Returns:
        Ids of emails that are here, by those of the rows.
    """
    records = await connection.fetch(SELECT_MADE, [row.zendesk_ticket_id for row in rows])
    if not any(record["is_open"] for record in records):
        return {}
    open_by_ticket: dict[str, list[Told]] = {}
    places_by_ticket: dict[str, list[tuple[Told, Told]]] = {}
    for record in records:
        texts = essences((record["raw_body_text"], record["raw_body_html"]))
        files = Files.of(read_json(record["attachment_urls"]))
        comment_id, written_at = record["zendesk_comment_id"], record["received_at"]
        one = Told(str(record["id"]), texts, written_at, comment_id, files)
        if record["is_open"]:
            open_by_ticket.setdefault(record["zendesk_ticket_id"], []).append(one)
        elif record["signed_at"] is not None:
            taker = attrs.evolve(one, at=record["signed_at"])
            places_by_ticket.setdefault(record["zendesk_ticket_id"], []).append((taker, one))
    found: dict[UUID, UUID] = {}
    taken: set[str] = set()
    for row in sorted(rows, key=lambda row: row.sent_at):
        still_open = open_by_ticket.get(row.zendesk_ticket_id, [])
        # Of equal ones the nearest: what is left has to fit webhooks that were sent earlier.
        fitting = [
            (like, abs(_sent_at(row) - one.at), one)
            for one in still_open
            if (like := _likeness(row, one)) is not None
        ]
        made = min(fitting, key=lambda fit: fit[:2])[2] if fitting else None
        places = places_by_ticket.setdefault(row.zendesk_ticket_id, [])
        if made is None and (sent := _signed(row)) is not None:
            made = next((one for one in still_open if has_place(sent, one, places)), None)
        keys = {key for key in (row.delivery_signature, row.idempotency_key) if key is not None}
        # The same delivery twice in one batch has one email.
        if made is not None and not keys & taken:
            taken |= keys
            still_open.remove(made)
            if (sent := _signed(row)) is not None:
                places.append((sent, made))
            found[row.id] = UUID(made.id)
            if row.id in unreadable:
                await connection.execute(REMOVE_UNREADABLE, unreadable[row.id])
            await connection.execute(
                TAKE_PLACE,
                found[row.id],
                row.delivery_signature,
                row.idempotency_key,
                row.signed_at,
            )
    return found


def _likeness(row: EmailRow, comment: Told) -> Likeness | None:
    if row.processing_error is not None:
        # Nobody can read it.
        return None
    if row.zendesk_comment_id is not None:
        return CERTAIN if row.zendesk_comment_id == comment.comment_id else None
    return likeness(_told(row), comment)


def _signed(row: EmailRow) -> Told | None:
    """What can be read of it, has no comment's id and was signed by Zendesk."""
    if row.signed_at is None or row.processing_error is not None or row.zendesk_comment_id:
        return None
    return _told(row)


def _told(row: EmailRow) -> Told:
    return Told(
        str(row.id),
        essences((row.raw_body_text, row.raw_body_html)),
        _sent_at(row),
        files=Files.of(read_json(row.attachment_urls)),
    )


def _sent_at(row: EmailRow) -> datetime:
    """By Zendesk's clock where that is known, as the times of comments are."""
    return row.signed_at or row.sent_at
