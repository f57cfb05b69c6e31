"""`mailroom drill`."""

import asyncio
import itertools
import json
import random
import secrets
import time
from collections import Counter
from uuid import UUID

import asyncpg
import click
from rich.table import Table

from app.cli.acting import by, command_actor
from app.cli.addresses import split_address
from app.cli.amounts import Amount
from app.cli.database_access import run_with_pool
from app.cli.printing import say, say_table
from app.cli.send import webhook_url
from app.database.errors import CANNOT_ASK
from app.drill.load import Load, Unanswered, Webhook
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

STORED = "SELECT id, subject, processing_status FROM incoming_emails WHERE zendesk_ticket_id = $1"
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
    type=Amount(0.1),
    default=20.0,
    show_default=True,
    help="Emails a second.",
)
@click.option(
    "--seconds",
    type=Amount(1),
    default=60.0,
    show_default=True,
    help="How long they are sent; the faults strike at even times in it.",
)
@click.option(
    "--patience",
    type=Amount(1),
    default=300.0,
    show_default=True,
    help="Seconds after which what is not answered 200 is given up, and, after that, what is still "
    "in work counts as unfinished.",
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

    Prints its plan first, sends signed webhooks from here, lets one fault after the other strike
    once a first one is answered 200, and waits until all is worked off. Its emails are of
    drill@mailroom.invalid, in a ticket of their own. COMMANDs are run by a shell without a
    terminal, have to bring back what they take away, and are killed if they do not end within ten
    minutes.

    Exits with 0 only if each webhook was answered 200, each accepted email was completed, none is
    there twice, and each step could be done.
    """
    settings = get_settings()
    if settings.is_production and not (yes or dry_run):
        raise DrillError(
            "a drill kills workers and breaks connections, and MAILROOM_ENV is production: see the "
            "plan with --dry-run, and say --yes if this installation is meant"
        )
    url = url or webhook_url(settings)
    split_address(url)
    run = _Drill(settings, url, rate, patience, Reach(**reach))
    is_well = run_with_pool(lambda pool: run.go(pool, seconds, dry_run=dry_run, remove=remove))
    raise SystemExit(0 if is_well else 1)


class _Drill:
    def __init__(
        self, settings: Settings, url: str, rate: float, patience: float, reach: Reach
    ) -> None:
        self._secret = settings.webhook_secrets[0].secret
        self._url = url
        self._rate = rate
        self._patience = patience
        self._reach = reach
        # Several loads draw from it at once.
        self._numbers = itertools.count(1)
        self._ticket = f"{TICKET}{secrets.token_hex(6)}"
        self._failed: list[str] = []
        self._loads: list[Load] = []

    async def go(self, pool: Pool, seconds: float, *, dry_run: bool, remove: bool) -> bool:
        """Returns whether all is well."""
        plan = make_plan(self._reach, pool, self._burst)
        say(f"{self._rate:g} emails a second to {self._url}, in the ticket {self._ticket}, and:")
        for number, step in enumerate(plan, 1):
            say(f"{number}. {step.name}: {step.does}")
        if dry_run:
            return True
        load = self._make_load(self._rate)
        await load.send_one(self._patience)
        load.start()
        try:
            await self._strike(plan, seconds, load)
            await asyncio.to_thread(load.stop, self._patience)
        finally:
            for each in self._loads:
                await asyncio.to_thread(each.give_up)
        verdict = await self._wait_for_ends(pool)
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
            and not self._unanswered
        )

    @property
    def _accepted(self) -> set[UUID]:
        return {email_id for load in self._loads for email_id in load.accepted}

    @property
    def _unanswered(self) -> list[Unanswered]:
        return [one for load in self._loads for one in load.unanswered]

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
        load = self._make_load(float("inf"))
        load.start()
        await asyncio.sleep(BURST_SECONDS)
        await asyncio.to_thread(load.stop, self._patience)

    def _make_load(self, per_second: float) -> Load:
        load = Load([self._url], per_second, self._draw, random.SystemRandom())
        self._loads.append(load)
        return load

    def _draw(self) -> list[Webhook]:
        payload = {
            "ticket_id": self._ticket,
            "from_email": SENDER,
            "from_name": "Mailroom's drill",
            "subject": f"[drill] email {next(self._numbers)}",
            "body_text": "This email was made by `mailroom drill`. Nobody wrote it.",
            "webhook_id": f"{self._ticket}-{secrets.token_hex(8)}",
        }
        body = json.dumps(payload).encode()
        return [Webhook(body, signed_headers(self._secret, body))]

    async def _wait_for_ends(self, pool: Pool) -> Verdict:
        deadline = time.monotonic() + self._patience
        accepted = self._accepted
        given_up = {json.loads(one.webhook.content)["subject"] for one in self._unanswered}
        while True:
            rows = await _fetch(pool, self._ticket)
            if rows is not None:
                states = {row["id"]: row["processing_status"] for row in rows}
                ids = {row["subject"]: row["id"] for row in rows if row["subject"] in given_up}
                verdict = judge(accepted, states, ids.values())
                if not verdict.unfinished or time.monotonic() > deadline:
                    return verdict
            elif time.monotonic() > deadline:
                raise DrillError(f"the database does not answer after {self._patience:g} seconds")
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    def _print(self, verdict: Verdict, longest: float) -> None:
        table = Table(title="Mailroom drill", show_header=False)
        lines = {
            "sent": sum(load.sent for load in self._loads),
            "accepted": len(self._accepted),
            "not answered 200": _counted(self._unanswered),
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


def _counted(unanswered: list[Unanswered]) -> str:
    """How many there are, and why."""
    reasons = Counter(one.reason for one in unanswered)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{len(unanswered)} ({told})" if told else "0"


async def _fetch(pool: Pool, ticket: str) -> list["asyncpg.Record"] | None:
    """What is stored; None while the database is away."""
    try:
        return await pool.fetch(STORED, ticket)
    except CANNOT_ASK:
        return None
