"""The watch over suspended mail: lists what Zendesk suspends, recovers and archives what the
settings say, and tells before Zendesk deletes the rest."""

import asyncio
from datetime import datetime
from typing import TypeAlias

import asyncpg
import attrs
import structlog

from app.alerts import alarms
from app.alerts.alarms import Trouble
from app.intake.quarantine import Quarantine
from app.jobs.chores import Chore, ChoreContext
from app.models.alarm import AlarmKind
from app.settings import Settings
from app.zendesk import cursors
from app.zendesk.client import ZendeskClient
from app.zendesk.suspended import rows
from app.zendesk.suspended.api import Suspended, list_suspended
from app.zendesk.suspended.keeping import archive, recover_all

log = structlog.get_logger(__name__)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

EVERY_SECONDS = 900.0
# Nobody waits for a round; it may well wait for the rate limit.
PATIENCE_SECONDS = 300.0
TRIES = 3
# What Zendesk still lists after so many tries is left to people, and archived as all else is.
MOST_RECOVERIES = 3
NO_ROOM = "no room"

MEND = (
    "see `mailroom suspended list`, or the page /suspended: recover or archive what is no spam, or "
    "set MAILROOM_SUSPENDED_ARCHIVE"
)
NO_ROOM_TROUBLE = Trouble(
    "the quarantine has no room for suspended mail, which Zendesk deletes after 14 days",
    "discard what is not needed with `mailroom quarantine discard`, or raise "
    "MAILROOM_QUARANTINE_MAX_ROWS and MAILROOM_QUARANTINE_MAX_BYTES",
)


def suspended_chores(settings: Settings) -> list[Chore]:
    """Looks at what Zendesk suspends; nothing without a token."""
    if not settings.zendesk_token:
        return []

    async def look(context: ChoreContext) -> str | None:
        done = await watch(settings, context.pool, context.stopping)
        return None if done is None else done.summary

    return [Chore("suspended", EVERY_SECONDS, look)]


@attrs.define
class Round:
    """What one round did."""

    listed: int = 0
    odd: int = 0
    gone: int = 0
    archived: int = 0
    without_room: int = 0
    recovered: int = 0
    not_recovered: int = 0

    @property
    def summary(self) -> str:
        """In words, for operators."""
        done = {
            "recovered": self.recovered,
            "which Zendesk could not recover": self.not_recovered,
            "archived": self.archived,
            "that the quarantine has no room for": self.without_room,
            "without an id, left out": self.odd,
        }
        said = [f"{self.listed} are suspended", *(f"{n} {what}" for what, n in done.items() if n)]
        return ", ".join(said)


async def watch(
    settings: Settings, pool: Pool, stopping: asyncio.Event | None = None
) -> Round | None:
    """One round. None where the process stops meanwhile.

    Raises:
        ZendeskError: Zendesk did not tell; nothing is forgotten for that.
        Exception: the database is away.
    """
    client = ZendeskClient(settings, patience_seconds=PATIENCE_SECONDS, tries=TRIES)
    quarantine = Quarantine(settings, pool)
    done = Round()
    try:
        began: datetime = await pool.fetchval("SELECT now()")
        wanted: list[int] = []
        async for page in list_suspended(client):
            if stopping is not None and stopping.is_set():
                return None
            done.listed += len(page.items)
            done.odd += len(page.odd)
            await cursors.keep_odd(pool, "suspended", page.odd)
            await rows.see(pool, page.items)
            known = await rows.find_some(pool, [found.id for found in page.items])
            for found in page.items:
                row = known.get(found.id)
                if row is None:
                    # A later look found it gone.
                    continue
                if _is_recovered(settings, row):
                    wanted.append(found.id)
                elif settings.suspended_archive and row.archived_at is None:
                    await _archive(settings, pool, quarantine, found, done)
        done.gone = await rows.forget_unseen(pool, began)
        if wanted:
            done.recovered, failed = await recover_all(client, pool, wanted, by="a rule")
            done.not_recovered = len(failed)
    finally:
        await quarantine.close()
        await client.close()
    if done.odd:
        log.warning("suspended_odd", items=done.odd)
    await _keep_alarms(settings, pool, done)
    return done


async def refresh(settings: Settings, pool: Pool) -> None:
    """Bring the list up to date, and do nothing else.

    Raises:
        ZendeskError: Zendesk did not tell.
        Exception: the database is away.
    """
    client = ZendeskClient(settings, patience_seconds=PATIENCE_SECONDS, tries=TRIES)
    try:
        began: datetime = await pool.fetchval("SELECT now()")
        async for page in list_suspended(client):
            await rows.see(pool, page.items)
        await rows.forget_unseen(pool, began)
    finally:
        await client.close()


def _is_recovered(settings: Settings, row: rows.Row) -> bool:
    """Whether it is to be recovered by a rule now."""
    fits = any(rule.fits(row.cause, row.sender) for rule in settings.suspended_recover)
    return fits and row.recover_tries < MOST_RECOVERIES and row.erased_at is None


async def _archive(
    settings: Settings, pool: Pool, quarantine: Quarantine, found: Suspended, done: Round
) -> None:
    kept = await archive(settings, pool, quarantine, found)
    done.archived += kept is True
    done.without_room += kept is None


async def _keep_alarms(settings: Settings, pool: Pool, done: Round) -> None:
    days = settings.suspended_alert_days
    endangered = await rows.count_endangered(pool, days) if days else {}
    found = {
        day: Trouble(f"Zendesk deletes {mails} suspended mails on {day}", MEND)
        for day, mails in endangered.items()
    }
    if done.without_room:
        found[NO_ROOM] = NO_ROOM_TROUBLE
    await alarms.keep(pool, AlarmKind.SUSPENDED, found)
