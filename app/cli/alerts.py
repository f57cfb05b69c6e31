"""`mailroom alerts`."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import click

from app.alerts.alarms import OpenAlarm, find_latest, find_open
from app.alerts.messages import Message
from app.alerts.sending import send
from app.cli.database_access import run_with_pool
from app.cli.printing import say
from app.errors import MailroomError
from app.setting_groups.alerts import AlertTarget
from app.settings import Settings, get_settings
from app.telemetry.request_id import uuid7

LATEST = 20


class NobodyIsToldError(MailroomError):
    """There is nobody to send a test to."""


@click.group()
def alerts() -> None:
    """See the alarms, and try out who is told of them."""


@alerts.command("list")
def list_all() -> None:
    """List what is wrong now, and the latest that is over. Exits with 0 if nothing is wrong."""

    async def find(pool: "asyncpg.Pool[asyncpg.Record]") -> tuple[list[OpenAlarm], list[OpenAlarm]]:
        return await find_open(pool), await find_latest(pool, LATEST)

    wrong, over = run_with_pool(find)
    for alarm in wrong:
        say(f"{_minute(alarm.since)}  {alarm.kind:<9}  {alarm.text}. {alarm.mend}.")
        if alarm.not_told_because:
            say(f"{'':18}not told yet: {alarm.not_told_because}")
    say(f"{len(wrong)} wrong now" if wrong else "nothing is wrong")
    for alarm in over:
        lasted = str(alarm.duration).split(".")[0]
        say(f"{_minute(alarm.since)}  {alarm.kind:<9}  over after {lasted}: {alarm.text}")
    raise SystemExit(1 if wrong else 0)


@alerts.command()
def test() -> None:
    """Send a test to each of MAILROOM_ALERT_URL. Exits with 0 if all arrived."""
    settings = get_settings()
    if not settings.alert_url:
        raise NobodyIsToldError("MAILROOM_ALERT_URL is empty: nobody is told of alarms")
    said = asyncio.run(_test(settings))
    for target, error in said:
        say(f"{'FAIL' if error else 'ok  '} {target.label}{f': {error}' if error else ''}")
    raise SystemExit(1 if any(error for _, error in said) else 0)


async def _test(settings: Settings) -> list[tuple[AlertTarget, str | None]]:
    return list(await asyncio.gather(*(_try(settings, target) for target in settings.alert_url)))


async def _try(settings: Settings, target: AlertTarget) -> tuple[AlertTarget, str | None]:
    try:
        await send(settings, target, Message.test(uuid7(), datetime.now(UTC)))
    except MailroomError as error:
        return target, str(error)
    return target, None


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
