"""The past: all tickets that changed since some day are looked through as the second line looks at
those of today. How far it is stands in PostgreSQL, so one that was killed is gone on with.
"""

from datetime import UTC, datetime, timedelta

from app.errors import MailroomError
from app.jobs.chores import ChoreContext
from app.settings import Settings
from app.zendesk import cursors
from app.zendesk.client import ZendeskClient
from app.zendesk.ticket_line import OnPage, Progress, TicketLine
from app.zendesk.watch import with_client

BACKFILL = "zendesk-backfill"


class BackfillError(MailroomError):
    """It cannot begin there; the message says why."""


def check_start(settings: Settings, since: datetime, now: datetime) -> None:
    """See that a backfill may begin at a moment.

    Raises:
        BackfillError: it is in the future, or emails of then have been deleted on purpose.
    """
    if since >= now:
        raise BackfillError("--since has to be in the past")
    kept = [
        (days, f"MAILROOM_{name.upper()}")
        for name in ("keep_completed_days", "keep_failed_days")
        if (days := getattr(settings, name)) > 0
    ]
    if kept:
        days, name = min(kept)
        oldest = now - timedelta(days=days)
        if since < oldest:
            raise BackfillError(
                f"emails from before {oldest:%Y-%m-%d %H:%M} UTC are deleted by {name}, and would "
                "come again: let --since name a later time"
            )


async def backfill(
    settings: Settings,
    context: ChoreContext,
    since: datetime,
    *,
    dry_run: bool = False,
    on_page: OnPage | None = None,
) -> str:
    """Look through all tickets that changed since a moment, or go on where that broke off. Returns
    what it found, in words.

    Raises:
        BackfillError: it cannot begin there.
        ZendeskError: Zendesk cannot be asked; the next call goes on.
    """
    check_start(settings, since, datetime.now(UTC))
    name = f"backfill since {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

    async def tell(progress: Progress) -> None:
        await context.note(f"{progress}; until {progress.until:%Y-%m-%d %H:%M} UTC")
        if on_page is not None:
            await on_page(progress)

    async def look(client: ZendeskClient) -> str:
        cursor = await cursors.find(context.pool, name, since)
        if not dry_run:
            # One that came to its end begins anew.
            is_over = cursor.ended_at is not None
            cursor = await cursors.begin(context.pool, name, since, anew=is_over)
        line = TicketLine(
            settings,
            context.pool,
            client,
            name=name,
            stopping=context.stopping,
            on_page=tell,
        )
        return str(await line.run(cursor, dry_run=dry_run))

    return await with_client(settings, context, look)
