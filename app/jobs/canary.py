"""The canary among the jobs: a Dispatcher sends it when its turn comes, and a worker that has a
place free tries with it the statements that claim and complete an email.

The email that they change is taken back before the commit, so no list and no count ever holds it.
What handlers do has effects elsewhere: none runs for a canary.
"""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import structlog

from app.database.errors import CANNOT_ASK
from app.errors import MailroomError
from app.jobs.transitions.claiming import CLAIM
from app.jobs.transitions.common import IS_PAUSED, Database
from app.jobs.transitions.ending import COMPLETE

log = structlog.get_logger(__name__)

SendCanary = Callable[[UUID], object]

# What was received before it goes first, as it does before an email: it tells how long one takes.
QUEUE = f"""
UPDATE canaries SET queued_at = clock_timestamp()
WHERE accepted_at IS NOT NULL AND queued_at IS NULL AND token IS NOT NULL
    AND NOT {IS_PAUSED} AND NOT EXISTS (
    SELECT FROM incoming_emails
    WHERE processing_status = 'received' AND received_at < accepted_at
)
RETURNING token
"""  # noqa: S608 - a constant
CLAIMED = """
UPDATE canaries SET claimed_at = clock_timestamp()
WHERE token = $1 AND claimed_at IS NULL
RETURNING id
"""
STAND_IN = """
INSERT INTO incoming_emails (id, zendesk_ticket_id, from_email, processing_status, queued_at)
VALUES ($1, '0', 'canary@mailroom.invalid', 'queued', now())
"""
COMPLETED = "UPDATE canaries SET completed_at = clock_timestamp() WHERE token = $1"
MOST_BYTES = 1_000_000


class CanaryError(MailroomError):
    """An email could not be claimed or completed."""


async def queue(database: Database) -> UUID | None:
    """Take the canary for the broker, if it is its turn."""
    token: UUID | None = await database.fetchval(QUEUE)
    return token


async def go_through(
    pool: "asyncpg.Pool[asyncpg.Record]", token: UUID, *, lease: timedelta, worker: str
) -> None:
    """Do with a canary what is done with an email, but for its handler. Where that cannot be done
    it goes no further, which whoever sent it notices."""
    try:
        if await pool.fetchval(CLAIMED, token) is None:
            # Its message came twice, or late.
            return
        async with pool.acquire() as connection, connection.transaction():
            trying = connection.transaction()
            await trying.start()
            try:
                await _claim_and_complete(connection, token, lease, worker)
            finally:
                await trying.rollback()
            await connection.execute(COMPLETED, token)
    except (*CANNOT_ASK, CanaryError) as error:
        log.warning("canary_not_completed", error=type(error).__name__)


async def _claim_and_complete(
    database: Database, token: UUID, lease: timedelta, worker: str
) -> None:
    await database.execute(STAND_IN, token)
    claimed = await database.fetchrow(
        CLAIM, [token], [uuid4()], lease, worker, False, False, MOST_BYTES, True
    )
    if claimed is None or claimed["id"] != token:
        raise CanaryError("it could not be claimed")
    ended = await database.fetchrow(
        COMPLETE, [token], [claimed["started_at"]], [None], [None], False
    )
    if ended is None or not ended["is_recorded"]:
        raise CanaryError("it could not be completed")
