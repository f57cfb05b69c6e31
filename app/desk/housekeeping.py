"""What each web process does now and then: it deletes sessions, sign-ins and attempts that are
over, and keeps up the counts that the overview shows."""

import asyncio
from datetime import datetime
from typing import TypeAlias

import asyncpg
import structlog

from app.database.errors import CANNOT_ASK
from app.desk.login_limit import forget_old_attempts
from app.desk.sign_in_steps import forget_old_steps
from app.jobs import throughput

log = structlog.get_logger(__name__)

EVERY_SECONDS = 60.0

# Piccolo stores the local time, without a zone.
END_SESSIONS = "DELETE FROM sessions WHERE LEAST(expiry_date, max_expiry_date) < $1"


Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


async def keep_house(pool: Pool) -> None:
    """Do it again and again, until it is cancelled."""
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


async def keep_house_once(database: Pool) -> None:
    """Do it now."""
    await database.execute(END_SESSIONS, datetime.now())  # noqa: DTZ005
    await forget_old_attempts(database)
    await forget_old_steps(database)
    await throughput.keep_up(database)
