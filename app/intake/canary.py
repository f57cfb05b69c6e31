"""The canary at the Intake: how it is known, and how it is tried whether an email could be stored.

What its body looks like leaves no room for an email, so nobody can hide one by it. It counts only
where its signature is Zendesk's and where the database knows that it was sent.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

import attrs
import structlog

from app.database.errors import CANNOT_ASK
from app.intake.email_row import EmailRow, make_row
from app.intake.json_body import read_json_object
from app.intake.payload import check_payload
from app.intake.row_writer import Connection

log = structlog.get_logger(__name__)

# The emails of its batch wait with it for their answers.
LONGEST_SECONDS = 2.0
# The whole body, byte for byte.
_BODY = re.compile(rb'\{"mailroom_canary":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"\}')

# What is tried in its place. The row is taken back before the commit, so nobody ever sees it.
STAND_IN = {
    "ticket_id": "0",
    "from_email": "canary@mailroom.invalid",
    "from_name": "Canary",
    "subject": "Is the way open?",
    "body_text": "This is no email: it is looked at whether one could be stored.",
}
_STAND_IN_BODY = json.dumps(STAND_IN).encode()

ACCEPT = """
UPDATE canaries SET accepted_at = clock_timestamp()
WHERE token = $1 AND accepted_at IS NULL
RETURNING pg_notify('mailroom_received', '')
"""


@attrs.frozen
class CanaryRow(EmailRow):
    """The row that is tried for a canary; its id is the canary's token."""


def canary_body(token: UUID) -> bytes:
    """The body of the webhook of a canary."""
    return f'{{"mailroom_canary":"{token}"}}'.encode()


def read_canary(body: bytes) -> UUID | None:
    """The token of a canary; None for all else."""
    found = _BODY.fullmatch(body)
    return UUID(found[1].decode()) if found else None


def make_canary_row(token: UUID, now: datetime) -> CanaryRow:
    """The row that is tried for a canary, made as that of an email is."""
    row = make_row(
        _STAND_IN_BODY,
        read_json_object(_STAND_IN_BODY),
        check_payload(STAND_IN),
        email_id=token,
        invocation_id=None,
        # It meets no other email.
        signature=f"canary {token}",
        now=now,
    )
    return CanaryRow(**attrs.asdict(row, recurse=False))


async def try_out(
    connection: Connection,
    row: CanaryRow,
    insert: Callable[[Connection, Sequence[EmailRow]], Awaitable[object]],
) -> bool:
    """Store the row of a canary and take it back, and note that it could be stored.

    Returns:
        Whether it could. It raises nothing: emails of the same batch are stored by now.
    """
    try:
        async with asyncio.timeout(LONGEST_SECONDS), connection.transaction():
            trying = connection.transaction()
            await trying.start()
            try:
                await insert(connection, [row])
            finally:
                await trying.rollback()
            await connection.execute(ACCEPT, row.id)
    except CANNOT_ASK as error:
        log.warning("canary_not_stored", error=type(error).__name__)
        return False
    return True
