"""`mailroom pause`, `resume` and `status`."""

import json
from typing import Any

import attrs
import click

from app.alerts.alarms import find_open
from app.api.emails import count_by_status
from app.audit.acts import Act
from app.audit.log import Database, in_transaction, write
from app.cli.acting import by, command_actor
from app.cli.database_access import ask
from app.cli.printing import say, say_lines
from app.jobs import pausing
from app.jobs.heartbeat import SILENT_AFTER
from app.jobs.pausing import Pause
from app.models.incoming_email import ProcessingStatus

COUNTED_AT_MOST = 100_000
OPEN_STATES = [state for state in ProcessingStatus if state is not ProcessingStatus.COMPLETED]
COUNT_WORKERS = "SELECT count(*) FROM workers WHERE seen_at > now() - $1::interval"


@click.command()
@click.argument("reason")
def pause(reason: str) -> None:
    """Have no worker take another email; what runs ends. Email is accepted and waits.

    REASON is shown to everybody who sees that nothing is processed.
    """
    actor = command_actor()

    async def run(database: Database) -> None:
        async with in_transaction(database) as connection:
            await pausing.pause(connection, by=by(), reason=reason)
            await write(connection, actor, Act.PROCESSING_PAUSE)

    ask(run)
    say("processing is paused: `mailroom resume` ends that")


@click.command()
def resume() -> None:
    """Have the workers take emails again."""
    actor = command_actor()

    async def run(database: Database) -> Pause:
        async with in_transaction(database) as connection:
            over = await pausing.resume(connection)
            await write(connection, actor, Act.PROCESSING_RESUME)
        return over

    over = ask(run)
    say(f"processing goes on; it was paused since {over.since:%Y-%m-%d %H:%M} by {over.who}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool) -> None:
    """Say how it stands: emails by state, workers, alarms, and whether processing is paused.

    Exits with 0 if emails are processed and no alarm is open, else with 1.
    """
    found = ask(_look)
    pause, alarms = found["pause"], found["alarms"]
    if as_json:
        say_lines(json.dumps(found, indent=2, default=str))
    else:
        for state, emails in found["emails"].items():
            say(f"{state + ':':<12} {emails:,}{'+' if emails == COUNTED_AT_MOST else ''}")
        say(f"{'workers:':<12} {found['workers']}")
        for alarm in alarms:
            say(f"alarm: {alarm['text']}. {alarm['mend']}")
        if pause:
            say(
                f"paused since {pause['since']:%Y-%m-%d %H:%M} by {pause['who']}: {pause['reason']}"
            )
            say("once that is over: mailroom resume")
    raise SystemExit(0 if found["workers"] and not alarms and not pause else 1)


async def _look(database: Database) -> dict[str, Any]:
    pause = await pausing.find(database)
    counts = await count_by_status(database, OPEN_STATES, at_most=COUNTED_AT_MOST)
    return {
        "emails": {state.value: count.emails for state, count in counts.items()},
        "workers": await database.fetchval(COUNT_WORKERS, SILENT_AFTER),
        "pause": attrs.asdict(pause) if pause else None,
        "alarms": [{"text": one.text, "mend": one.mend} for one in await find_open(database)],
    }
