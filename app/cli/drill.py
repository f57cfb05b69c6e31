"""`mailroom drill`."""

import asyncio
import json
import random
import secrets
import time
from uuid import UUID

import asyncpg
import click
from rich.table import Table

from app.cli.acting import by, command_actor
from app.cli.database_access import run_with_pool
from app.cli.printing import say, say_table
from app.cli.send import webhook_url
from app.database.errors import CANNOT_ASK
from app.drill.load import Load, Webhook
from app.drill.plan import Reach, Step, StepError, make_plan
from app.drill.verdict import Verdict, judge
from app.errors import MailroomError
from app.intake.signature import signed_headers
from app.retention import erasure
from app.retention.criteria import Criterion, Pool
from app.settings import Settings, get_settings

# Nobody has an address below it: https://www.rfc-editor.org/rfc/rfc2606#section-2
SENDER = "drill@mailroom.invalid"
TICKET = "drill-"
BURST_SECONDS = 5.0
LOOK_EVERY_SECONDS = 0.5

STORED = "SELECT id, processing_status FROM incoming_emails WHERE zendesk_ticket_id = $1"
LONGEST = """
SELECT extract(epoch FROM max(completed_at - created_at))::float8 FROM incoming_emails
WHERE zendesk_ticket_id = $1
"""


class DrillError(MailroomError):
    """The drill does not begin."""


@click.command()
@click.option("--url", help="Of the webhook. [default: that of this installation]")
@click.option(
    "--rate",
    type=click.FloatRange(min=0.1),
    default=20.0,
    show_default=True,
    help="Emails a second.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="How long they are sent; the faults strike at even times in it.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="Seconds after which what is still in work counts as unfinished.",
)
@click.option("--kill-worker", metavar="COMMAND", help="How to kill one elsewhere.")
@click.option("--drop-broker", metavar="COMMAND", help="How to take the broker away for a while.")
@click.option("--restart-database", metavar="COMMAND", help="How to restart PostgreSQL.")
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option("--remove", is_flag=True, help="Erase the drill's emails afterwards.")
@click.option("--yes", is_flag=True, help="Needed with MAILROOM_ENV=production.")
def drill(
    url: str | None,
    rate: float,
    seconds: float,
    patience: float,
    dry_run: bool,
    remove: bool,
    yes: bool,
    **reach: str | None,
) -> None:
    """Let faults strike a staging installation under load, and see that nothing is lost.

    Prints its plan first, sends signed webhooks from here, lets one fault after the other strike,
    and waits until all is worked off. Its emails are of drill@mailroom.invalid, in a ticket of
    their own. COMMANDs are run by a shell and have to bring back what they take away.

    Exits with 0 only if each accepted email was completed, none is there twice, and each step could
    be done.
    """
    settings = get_settings()
    if settings.is_production and not (yes or dry_run):
        raise DrillError(
            "a drill kills workers and breaks connections, and MAILROOM_ENV is production: see the "
            "plan with --dry-run, and say --yes if this installation is meant"
        )
    run = _Drill(settings, url or webhook_url(settings), rate, Reach(**reach))
    is_well = run_with_pool(
        lambda pool: run.go(pool, seconds, patience, dry_run=dry_run, remove=remove)
    )
    raise SystemExit(0 if is_well else 1)


class _Drill:
    def __init__(self, settings: Settings, url: str, rate: float, reach: Reach) -> None:
        self._secret = settings.webhook_secrets[0].secret
        self._url = url
        self._rate = rate
        self._reach = reach
        self._number = 0
        self._ticket = f"{TICKET}{secrets.token_hex(6)}"
        self._failed: list[str] = []
        self._loads: list[Load] = []

    async def go(
        self, pool: Pool, seconds: float, patience: float, *, dry_run: bool, remove: bool
    ) -> bool:
        """Returns whether all is well."""
        plan = make_plan(self._reach, pool, self._burst)
        say(f"{self._rate:g} emails a second to {self._url}, in the ticket {self._ticket}, and:")
        for number, step in enumerate(plan, 1):
            say(f"{number}. {step.name}: {step.does}")
        if dry_run:
            return True
        load = self._begin_load(self._rate)
        try:
            await self._strike(plan, seconds, load)
            await asyncio.to_thread(load.stop)
        finally:
            for each in self._loads:
                await asyncio.to_thread(each.give_up)
        verdict = await self._wait_for_ends(pool, patience)
        longest = await pool.fetchval(LONGEST, self._ticket)
        self._print(verdict, longest or 0.0)
        if remove:
            record = await erasure.erase(
                pool, Criterion.ticket(self._ticket), by=by(), actor=command_actor()
            )
            say(f"{record.erased.emails} emails of the drill are erased.")
        else:
            say(f"Erase them with: mailroom erase --ticket {self._ticket}")
        return (
            verdict.keeps_promises
            and not verdict.states["failed"]
            and not self._failed
            and bool(self._accepted)
        )

    @property
    def _accepted(self) -> set[UUID]:
        return {email_id for load in self._loads for email_id in load.accepted}

    async def _strike(self, plan: list[Step], seconds: float, load: Load) -> None:
        steps = [step for step in plan if step.strike is not None]
        pause = seconds / (len(steps) + 1)
        for step in steps:
            await asyncio.sleep(pause)
            load.check()
            say(f"{step.name} ...")
            try:
                if step.strike is not None:
                    await step.strike()
            except (StepError, *CANNOT_ASK) as error:
                self._failed.append(step.name)
                say(f"{step.name} could not be done: {error}")
        await asyncio.sleep(pause)

    async def _burst(self) -> None:
        load = self._begin_load(float("inf"))
        await asyncio.sleep(BURST_SECONDS)
        await asyncio.to_thread(load.stop)

    def _begin_load(self, per_second: float) -> Load:
        load = Load([self._url], per_second, self._draw, random.SystemRandom())
        self._loads.append(load)
        load.start()
        return load

    def _draw(self) -> list[Webhook]:
        self._number += 1
        payload = {
            "ticket_id": self._ticket,
            "from_email": SENDER,
            "from_name": "Mailroom's drill",
            "subject": f"[drill] email {self._number}",
            "body_text": "This email was made by `mailroom drill`. Nobody wrote it.",
            "webhook_id": f"{self._ticket}-{secrets.token_hex(8)}",
        }
        body = json.dumps(payload).encode()
        return [Webhook(body, signed_headers(self._secret, body))]

    async def _wait_for_ends(self, pool: Pool, patience: float) -> Verdict:
        deadline = time.monotonic() + patience
        accepted = self._accepted
        while True:
            rows = await _fetch(pool, self._ticket)
            if rows is not None:
                verdict = judge(accepted, {row["id"]: row["processing_status"] for row in rows})
                if not verdict.unfinished or time.monotonic() > deadline:
                    return verdict
            elif time.monotonic() > deadline:
                raise DrillError(f"the database does not answer after {patience:g} seconds")
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    def _print(self, verdict: Verdict, longest: float) -> None:
        table = Table(title="Mailroom drill", show_header=False)
        lines = {
            "sent": sum(load.sent for load in self._loads),
            "accepted": len(self._accepted),
            "completed": verdict.states["completed"],
            "failed": verdict.states["failed"],
            "unfinished": verdict.unfinished,
            "lost": len(verdict.lost),
            "twice": len(verdict.twice),
            "longest wait for a 200": f"{max(load.longest_seconds for load in self._loads):.1f} s",
            "longest wait for the end": f"{longest:.1f} s",
            "steps that could not be done": ", ".join(self._failed) or "none",
        }
        for name, value in lines.items():
            table.add_row(name, str(value))
        say_table(table)


async def _fetch(pool: Pool, ticket: str) -> list["asyncpg.Record"] | None:
    """What is stored; None while the database is away."""
    try:
        return await pool.fetch(STORED, ticket)
    except CANNOT_ASK:
        return None
