"""The watch over silence: counts what comes, asks Zendesk how the way here stands, and keeps the
alarm. Without a token it knows silence all the same, and not why it is."""

from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

import asyncpg
import attrs

from app.alerts import alarms
from app.alerts.alarms import Trouble
from app.jobs.chores import Chore, ChoreContext
from app.models.alarm import AlarmKind
from app.settings import Settings
from app.zendesk.causes import Facts
from app.zendesk.client import ZendeskClient
from app.zendesk.clocks import skew
from app.zendesk.email_hours import Counts, count_up, look
from app.zendesk.errors import ZendeskAwayError, ZendeskError
from app.zendesk.facts import ask_way, count_tickets
from app.zendesk.own_webhooks import NONE_FOUND
from app.zendesk.verdict import Verdict, assess

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

EVERY_SECONDS = 120.0

NO_TOKEN = "set MAILROOM_ZENDESK_TOKEN, and Zendesk is asked"  # noqa: S105 - no token
COUNT_REFUSED = """
SELECT count(*) FROM (
    SELECT FROM quarantined_webhooks
    WHERE reason = 'signature' AND ($1::timestamptz IS NULL OR received_at > $1)
    LIMIT 100
) AS refused
"""
TOKEN_MEND = "`mailroom doctor` says what Zendesk answers; until then nothing is looked for there"  # noqa: S105


def silence_chore(settings: Settings) -> Chore:
    """Watches, with a token and without one."""

    async def listen(context: ChoreContext) -> str:
        return await watch(settings, context.pool)

    return Chore("silence", EVERY_SECONDS, listen)


@attrs.frozen
class Seen:
    """How it stands, and whether Zendesk could be asked."""

    verdict: Verdict
    error: ZendeskError | None
    clock: str | None = None
    """What is wrong with this machine's clock."""
    ambiguity: str | None = None
    """Why it is not known which webhooks are ours."""
    unknown_secret: str | None = None
    """What is wrong with the secret that Zendesk signs with, and how to mend it."""


async def watch(settings: Settings, pool: Pool) -> str:
    """Count, judge, and keep the alarms. Returns how it stands, in a sentence for operators.

    Raises:
        Exception: the database is away.
    """
    await count_up(pool)
    seen = await see(settings, pool)
    trouble = seen.verdict.trouble
    # One alarm of silence, whose text follows what is found out of its cause.
    if trouble is not None:
        await alarms.begin(pool, AlarmKind.SILENCE, trouble)
    elif seen.error is None or await _came_since(pool, seen.verdict.last_email_at):
        await alarms.end(pool, AlarmKind.SILENCE)
    if not settings.zendesk_token:
        # Nobody looks for it any longer.
        await alarms.keep(pool, AlarmKind.SUSPENDED, {})
    if not settings.canary_seconds:
        await alarms.end(pool, AlarmKind.CANARY)
    if seen.error is None or seen.clock is not None:
        await _keep(pool, "clock", seen.clock)
    if seen.error is None:
        await _keep(pool, "webhooks", seen.ambiguity)
        await _keep(pool, "secret", seen.unknown_secret)
        await alarms.end(pool, AlarmKind.ZENDESK)
    elif not isinstance(seen.error, ZendeskAwayError):
        # What is away comes back by itself; what is refused is to be mended by somebody.
        await alarms.begin(pool, AlarmKind.ZENDESK, Trouble(str(seen.error), TOKEN_MEND))
    return seen.verdict.summary


async def see(settings: Settings, pool: Pool) -> Seen:
    """Judge by the counts as they are, and by what Zendesk says now. Changes nothing.

    Raises:
        Exception: the database is away.
    """
    counts = await look(pool)
    refused = await pool.fetchval(COUNT_REFUSED, counts.last_email_at)
    seen_here = Facts(refused=refused, fetched=counts.fetched)
    if not settings.zendesk_token:
        return Seen(_assess(settings, counts, seen_here, NO_TOKEN), None)
    client = ZendeskClient(settings)
    try:
        facts = await ask_way(client, settings, counts.last_email_at, seen_here)
        why_unknown = None if facts.has_webhook is not None else NONE_FOUND
        verdict = _assess(settings, counts, facts, why_unknown)
        if verdict.is_silent and counts.last_email_at is not None:
            tickets = await count_tickets(client, counts.last_email_at)
            facts = attrs.evolve(facts, tickets=tickets)
            verdict = _assess(settings, counts, facts, why_unknown)
        return Seen(verdict, None, skew(client.clock_ahead), facts.ambiguity, facts.unknown_secret)
    except ZendeskError as error:
        verdict = _assess(settings, counts, seen_here, str(error))
        return Seen(verdict, error, skew(client.clock_ahead))
    finally:
        await client.close()


def _assess(settings: Settings, counts: Counts, facts: Facts, why_unknown: str | None) -> Verdict:
    return assess(
        counts,
        facts,
        now=datetime.now(UTC),
        floor=timedelta(seconds=settings.silence_floor_seconds),
        zone=ZoneInfo(settings.silence_zone),
        holidays=settings.silence_holidays,
        why_unknown=why_unknown,
    )


async def _keep(pool: Pool, key: str, said: str | None) -> None:
    """Keep one alarm about Zendesk, by what is wrong and how to mend it."""
    if said is None:
        await alarms.end(pool, AlarmKind.ZENDESK, key=key)
    else:
        text, _, mend = said.rpartition(": ")
        await alarms.begin(pool, AlarmKind.ZENDESK, Trouble(text, mend), key=key)


async def _came_since(pool: Pool, last_email_at: datetime | None) -> bool:
    """Whether an email came since the alarm began, which ends it though Zendesk cannot be asked."""
    return last_email_at is not None and all(
        alarm.since < last_email_at
        for alarm in await alarms.find_open(pool)
        if alarm.kind == AlarmKind.SILENCE
    )
