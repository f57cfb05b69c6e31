"""`mailroom gaps` and `mailroom backfill`."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.audit.acts import Act
from app.audit.log import write
from app.cli.acting import command_actor
from app.cli.database_access import run_with_pool
from app.cli.moments import to_moment
from app.cli.printing import say
from app.errors import MailroomError
from app.jobs.chore_runner import Chores
from app.jobs.chores import Chore, ChoreContext, Pool
from app.models.audit_entry import Result
from app.settings import Settings, get_settings
from app.zendesk.backfill import BACKFILL, check_start
from app.zendesk.backfill import backfill as go_through
from app.zendesk.ticket_line import OnPage
from app.zendesk.ticket_line import Progress as Seen
from app.zendesk.watch import (
    INVOCATIONS,
    TICKETS,
    look_at_invocations,
    look_at_tickets,
    watch_chores,
)

HAS_LOOKED = "SELECT EXISTS (SELECT FROM zendesk_cursors WHERE name NOT LIKE 'backfill %')"
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what is missing.")

Look = Callable[[ChoreContext], Awaitable[str]]


class NoTokenError(MailroomError):
    """Zendesk cannot be asked."""


@click.command()
@DRY_RUN
def gaps(dry_run: bool) -> None:
    """Look now for emails that no webhook brought, and store them.

    Looks at the calls that Zendesk did not record as delivered, and at the tickets that changed.
    The workers do the same each minute; only one process does it at a time. The first look begins
    with its own moment: `mailroom backfill` is for what was before.
    """
    settings = _settings()

    actor = command_actor()

    async def look(pool: Pool) -> None:
        is_first = not await pool.fetchval(HAS_LOOKED)
        if dry_run:
            context = _context(pool)
            say(f"{INVOCATIONS}: {await look_at_invocations(settings, context, dry_run=True)}")
            say(f"{TICKETS}: {await look_at_tickets(settings, context, dry_run=True)}")
        else:
            await write(pool, actor, Act.GAPS_LOOK, result=Result.BEGUN)
            chores = watch_chores(settings)
            for chore in chores:
                told = await Chores([chore], pool=pool, leases=pool).run_now(chore.name)
                say(f"{chore.name}: {told}")
        if is_first:
            say(
                "Nothing was looked at before, so this look begins now. "
                "For what was missed until now: mailroom backfill --since DATE"
            )

    run_with_pool(look)


@click.command()
@click.option(
    "--since",
    metavar="TIME",
    required=True,
    callback=to_moment,
    help="Look through all tickets that changed since then.",
)
@DRY_RUN
def backfill(since: datetime, dry_run: bool) -> None:
    """Look through the tickets of the past, and store emails that are not here.

    It keeps within Zendesk's rate limit, so many tickets take hours. It may be interrupted at any
    moment: the same command goes on from there.
    """
    settings = _settings()
    check_start(settings, since, datetime.now(UTC))

    actor = command_actor()

    async def fill(pool: Pool) -> str | None:
        with _bar(since) as on_page:

            async def run(context: ChoreContext) -> str:
                return await go_through(settings, context, since, dry_run=dry_run, on_page=on_page)

            if dry_run:
                return await run(_context(pool))
            details = {"since": since.isoformat()}
            await write(pool, actor, Act.BACKFILL, result=Result.BEGUN, details=details)
            chore = Chore(BACKFILL, 0.0, run)
            return await Chores([chore], pool=pool, leases=pool).run_now(BACKFILL)

    say(run_with_pool(fill) or "")


def _settings() -> Settings:
    settings = get_settings()
    if not settings.zendesk_token:
        raise NoTokenError(
            "Zendesk cannot be asked: set MAILROOM_ZENDESK_SUBDOMAIN, MAILROOM_ZENDESK_EMAIL and "
            "MAILROOM_ZENDESK_TOKEN, for the workers, too"
        )
    return settings


def _context(pool: Pool) -> ChoreContext:
    async def note(text: str) -> None:
        say(text, is_error=True)

    return ChoreContext(pool, asyncio.Event(), note)


@contextmanager
def _bar(since: datetime) -> Iterator[OnPage]:
    """A progress bar by the time at which tickets changed; they come in its order."""
    until = datetime.now(UTC)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("tickets", total=(until - since).total_seconds())

        async def on_page(seen: Seen) -> None:
            done = (min(seen.until, until) - since).total_seconds()
            bar.update(task, completed=done, description=f"{seen.until:%Y-%m-%d}: {seen}")

        yield on_page
        bar.update(task, completed=(until - since).total_seconds())
