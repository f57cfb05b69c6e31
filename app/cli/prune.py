"""`mailroom prune`."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from app.audit.acts import Act
from app.audit.log import write
from app.cli.acting import command_actor
from app.cli.database_access import run_with_pool
from app.cli.printing import say
from app.cli.sync import find_left_waiting
from app.errors import MailroomError
from app.jobs.chore_runner import Chores
from app.jobs.chores import Pool
from app.models.audit_entry import Result
from app.retention.pruner import NAME, prune_chore, survey, sweeps_of
from app.retention.sweeps import Count, Sweep
from app.settings import Settings, get_settings


class NothingToPruneError(MailroomError):
    """By the settings everything is kept."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count what is due.")
def prune(dry_run: bool) -> None:
    """Remove now what is older than the MAILROOM_KEEP_..._DAYS say.

    The workers do the same now and then; only one process does it at a time.
    """
    settings = get_settings()
    if not settings.prunes:
        raise NothingToPruneError(
            "everything is kept: set MAILROOM_KEEP_COMPLETED_DAYS or another of the "
            "MAILROOM_KEEP_..._DAYS, for the workers, too"
        )
    if dry_run:
        _count(settings)
        return
    chore = prune_chore(settings)
    actor = command_actor()

    async def run(pool: Pool) -> str | None:
        await write(pool, actor, Act.PRUNE, result=Result.BEGUN)
        return await Chores([chore], pool=pool, leases=pool).run_now(NAME)

    done = run_with_pool(run)
    say(done or "nothing was due")


def _count(settings: Settings) -> None:
    sweeps = sweeps_of(settings, datetime.now(UTC))

    async def look(pool: Pool) -> tuple[Sequence[tuple[Sweep, Count]], str | None]:
        left_waiting = None if settings.delivers else await find_left_waiting(pool)
        return await survey(pool, sweeps), left_waiting

    counts, left_waiting = run_with_pool(look)
    for sweep, count in counts:
        held = f"; {count.held:,} more wait for their delivery or files" if count.held else ""
        until = sweep.before.isoformat(timespec="seconds")
        say(f"{count.free:,} {sweep.what} from before {until} would be removed{held}")
    if left_waiting is not None:
        say(left_waiting)
