"""Processing paused and resumed by people. While it is, email is accepted, stored and kept; what
runs ends; nothing else is claimed. It is a row, so it outlives every restart, and all workers heed
it from the commit on: each claim and each look of a Dispatcher asks for it."""

from datetime import datetime

import attrs
import structlog

from app.errors import MailroomError
from app.i18n.texts import gettext as _
from app.jobs.transitions.common import Database
from app.models.fit import fit_text
from app.models.processing_pause import LONGEST_REASON

log = structlog.get_logger(__name__)

ALL = "all"

PAUSE = """
INSERT INTO processing_pauses (name, since, who, reason) VALUES ($1, now(), $2, $3)
ON CONFLICT (name) DO NOTHING
RETURNING since, who, reason
"""
# The first of the Dispatchers is woken.
RESUME = """
WITH resumed AS (DELETE FROM processing_pauses WHERE name = $1 RETURNING since, who, reason)
SELECT since, who, reason, pg_notify('mailroom_received', '') FROM resumed
"""
FIND = "SELECT since, who, reason FROM processing_pauses WHERE name = $1"


class PauseError(MailroomError):
    """Nothing was changed; the message says why."""


class PausedAlreadyError(PauseError):
    """Processing is paused already; whose pause it is stays."""


@attrs.frozen
class Pause:
    """Processing is paused."""

    since: datetime
    who: str
    reason: str


async def pause(database: Database, *, by: str, reason: str) -> Pause:
    """Have nothing more claimed, by whichever worker.

    Raises:
        PauseError: there is no reason, or one that cannot be kept.
        PausedAlreadyError: it is paused already.
    """
    reason = reason.strip()
    if not reason:
        raise PauseError(_("say why, for those who see that nothing is processed"))
    if len(reason) > LONGEST_REASON:
        raise PauseError(_("the reason is longer than %(most)s characters", most=LONGEST_REASON))
    if reason != fit_text(reason):
        raise PauseError(_("the reason holds a character that cannot be kept"))
    row = await database.fetchrow(PAUSE, ALL, by, reason)
    if row is None:
        raise PausedAlreadyError(_("processing is paused already: nothing was changed"))
    log.warning("processing_paused")
    return Pause(**row)


async def resume(database: Database) -> Pause:
    """Have emails claimed again.

    Returns:
        The pause that is over.

    Raises:
        PauseError: it was not paused.
    """
    row = await database.fetchrow(RESUME, ALL)
    if row is None:
        raise PauseError(_("processing is not paused: nothing was changed"))
    log.info("processing_resumed")
    return Pause(row["since"], row["who"], row["reason"])


async def find(database: Database) -> Pause | None:
    """The pause, if processing is paused."""
    row = await database.fetchrow(FIND, ALL)
    return Pause(**row) if row else None
