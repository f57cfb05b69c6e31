"""`mailroom reconcile`."""

import contextlib
import json
from collections import Counter
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import click

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import Pool, in_steps
from app.cli.acting import by, command_actor
from app.cli.amounts import Amount
from app.cli.database_access import run_with_pool
from app.cli.moments import to_moment
from app.cli.printing import say
from app.settings import get_settings
from app.sync.differences import Database, Difference, Which
from app.sync.plans import plan
from app.sync.receiver_check import asking_receiver
from app.sync.reconciling import ReceiverCheckError, Reconciliation
from app.sync.reconciling import reconcile as go_through

Ran: TypeAlias = tuple[Counter[Difference], int, ReceiverCheckError | None]

TOLD_EVERY = 100_000
OVERDUE_AFTER_HOURS = 1.0
LONGEST_OVERDUE_HOURS = 24.0 * 365

ABOUT = {
    Difference.NEVER_ASKED: "ended without being asked for, or called off",
    Difference.OVERDUE: "pending for too long",
    Difference.CHANGED: "ended anew since they were delivered",
    Difference.FAILED: "given up",
    Difference.LACKING: "not there, says the receiver",
    Difference.UNTOLD: "erased, and the receiver was not told",
    Difference.CHOSEN: "delivered before, and chosen",
}


@click.command()
@click.option(
    "--only",
    "only",
    multiple=True,
    type=click.Choice([one.value for one in Difference if one is not Difference.CHOSEN]),
    help="Only what differs so; may be given several times.",
)
@click.option("--id", "ids", multiple=True, type=click.UUID, help="These emails; several times.")
@click.option("--ticket", metavar="ID", help="The emails of a ticket.")
@click.option("--sender", metavar="ADDRESS", help="The emails of a sender.")
@click.option("--since", metavar="TIME", callback=to_moment, help="What ended since then.")
@click.option("--until", metavar="TIME", callback=to_moment, help="What ended before then.")
@click.option("--all", "everything", is_flag=True, help="All of that span is meant.")
@click.option(
    "--overdue-after",
    type=Amount(0, LONGEST_OVERDUE_HOURS),
    default=OVERDUE_AFTER_HOURS,
    show_default=True,
    metavar="HOURS",
    help="What is pending for so long counts as overdue.",
)
@click.option(
    "--apply", "applies", is_flag=True, help="Have it delivered; else it is only counted."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as a JSON object.")
def reconcile(
    only: tuple[str, ...],
    ids: tuple[UUID, ...],
    ticket: str | None,
    sender: str | None,
    since: datetime | None,
    until: datetime | None,
    everything: bool,
    overdue_after: float,
    applies: bool,
    as_json: bool,
) -> None:
    """Find emails whose delivery differs from the end of their jobs, and have these delivered.

    Without --since, --until or --id it looks for what differs, and asks the receiver what it lacks
    if MAILROOM_SYNC_CHECK_URL is set. With one of them it means all of that span or those emails,
    also what was delivered, unless --only says otherwise.

    It may be stopped at any time and run again. Exits with 0 if nothing differs or all of it is to
    be delivered now, else with 1: good for a check by cron.
    """
    settings = get_settings()
    meant = plan(
        settings,
        Which(
            ids=ids,
            ticket_id=ticket,
            from_email=sender,
            since=since,
            until=until,
            overdue_after=timedelta(hours=overdue_after),
        ),
        [Difference(one) for one in only],
        everything=everything,
        applies=applies,
        by=by(),
    )
    actor = command_actor()
    found, delivered, trouble = run_with_pool(lambda pool: _run_written(pool, meant, actor))
    if as_json:
        say(
            json.dumps(
                {
                    "found": {one.value: found[one] for one in Difference},
                    "to_be_delivered": delivered,
                }
            )
        )
    else:
        for difference in Difference:
            if found[difference]:
                say(f"{found[difference]:>9}  {ABOUT[difference]}")
        say(_summary(found.total(), delivered, applies=applies))
    if trouble is not None:
        raise trouble
    raise SystemExit(0 if found.total() == delivered else 1)


async def _run_written(pool: Pool, meant: Reconciliation, actor: Actor) -> Ran:
    if not meant.applies:
        return await _run(pool, meant)
    async with in_steps(pool, actor, Act.EMAIL_RECONCILE) as steps:
        found, steps.count, trouble = await _run(pool, meant)
    return found, steps.count, trouble


async def _run(database: Database, meant: Reconciliation) -> Ran:
    found: Counter[Difference] = Counter()
    looked_at = delivered = 0
    trouble = None
    async with contextlib.AsyncExitStack() as stack:
        asks = None
        if Difference.LACKING in meant.differences:
            asks = await stack.enter_async_context(asking_receiver(get_settings()))
        async for step in go_through(database, meant, asks=asks):
            found += step.found
            delivered += step.delivered
            trouble = trouble or step.trouble
            before, looked_at = looked_at, looked_at + step.looked_at
            if looked_at // TOLD_EVERY > before // TOLD_EVERY:
                say(f"{looked_at} emails looked at, {found.total()} found", is_error=True)
    return found, delivered, trouble


def _summary(found: int, delivered: int, *, applies: bool) -> str:
    if not found:
        return "Nothing differs."
    if not applies:
        return f"{found} emails would be delivered: do it with --apply"
    said = f"{delivered} emails are to be delivered now"
    if found > delivered:
        said += f"; {found - delivered} are due already, or in other hands right now"
    return said
