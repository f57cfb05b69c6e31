"""The chores that look behind the webhook, and the same for commands that do it at once."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from app.jobs.chores import Chore, ChoreContext
from app.settings import Settings
from app.zendesk.client import ZendeskClient
from app.zendesk.invocations import InvocationLine
from app.zendesk.ticket_line import TicketLine

INVOCATIONS = "zendesk-invocations"
TICKETS = "zendesk-tickets"

# A rate limit is waited for; it is a minute's, or what a Retry-After says.
PATIENCE_SECONDS = 3_600.0
TRIES = 4


def watch_chores(settings: Settings) -> list[Chore]:
    """What is looked at now and then; nothing without a token."""
    if not settings.zendesk_token:
        return []
    every = settings.zendesk_watch_seconds
    return [
        Chore(INVOCATIONS, every, lambda context: look_at_invocations(settings, context)),
        Chore(TICKETS, every, lambda context: look_at_tickets(settings, context)),
    ]


async def look_at_invocations(
    settings: Settings, context: ChoreContext, *, dry_run: bool = False
) -> str:
    """The first line, once. Returns what it found, in words."""

    async def look(client: ZendeskClient) -> str:
        line = InvocationLine(settings, context.pool, client, stopping=context.stopping)
        return str(await line.run_once(dry_run=dry_run))

    return await with_client(settings, context, look)


async def look_at_tickets(
    settings: Settings, context: ChoreContext, *, dry_run: bool = False
) -> str:
    """The second line, once. Returns what it found, in words."""

    async def look(client: ZendeskClient) -> str:
        line = TicketLine(settings, context.pool, client, stopping=context.stopping)
        return str(await line.run_once(dry_run=dry_run))

    return await with_client(settings, context, look)


async def with_client(
    settings: Settings,
    context: ChoreContext,
    look: Callable[[ZendeskClient], Coroutine[Any, Any, str]],
) -> str:
    """Do something with a client that waits for rate limits, and says until when."""

    async def on_wait(seconds: float, reason: str) -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        await context.note(f"waits until {until:%H:%M:%S} UTC: {reason}")

    client = ZendeskClient(
        settings, patience_seconds=PATIENCE_SECONDS, tries=TRIES, on_wait=on_wait
    )
    try:
        return await look(client)
    finally:
        await client.close()
