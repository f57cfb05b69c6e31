"""What each web process deletes now and then: sessions and attempts to sign in that are over."""

import asyncio
from datetime import datetime

import asyncpg
import structlog

from app.database.errors import CANNOT_ASK
from app.desk.login_limit import forget_old_attempts
from app.jobs.transitions.common import Database

log = structlog.get_logger(__name__)

EVERY_SECONDS = 60.0

# Piccolo stores the local time, without a zone.
END_SESSIONS = "DELETE FROM sessions WHERE LEAST(expiry_date, max_expiry_date) < $1"


async def keep_house(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Delete what is over, again and again, until it is cancelled."""
    is_failing = False
    while True:
        try:
            await keep_house_once(pool)
            is_failing = False
        except CANNOT_ASK as error:
            if not is_failing:
                log.warning("housekeeping_interrupted", error=type(error).__name__)
            is_failing = True
        await asyncio.sleep(EVERY_SECONDS)


async def keep_house_once(database: Database) -> None:
    """Delete what is over now."""
    await database.execute(END_SESSIONS, datetime.now())  # noqa: DTZ005
    await forget_old_attempts(database)
