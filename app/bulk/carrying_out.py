"""The chore that carries bulk actions out, a batch of each by turns.

A batch is one transaction: it has the action's row, changes the emails, counts them and moves the
position. Whoever is killed leaves whole batches; whoever goes on, and whoever was thought dead,
finds the position where it is. So no email is acted on twice, and the counts are exact.
"""

import asyncio
import contextlib
import time
from uuid import UUID

import structlog

from app.bulk import rows
from app.bulk.acting import REFUSED, MarkedTooEarlyError, act
from app.jobs.changes import tell
from app.jobs.chores import Chore, ChoreContext, Pool
from app.jobs.transitions import erasing
from app.models.bulk_action import ERASED_FILTER, Action
from app.retention import erasure_records
from app.settings import Settings

log = structlog.get_logger(__name__)

EVERY_SECONDS = 1.0
NOTE_EVERY_SECONDS = 5.0
FORGOTTEN_AT_ONCE = 5_000
# Between batches: webhooks and claims have at least half of the database's time.
LONGEST_PAUSE_SECONDS = 0.5
# A crash of PostgreSQL that loses a batch loses its count with it, and it is made again. What an
# erasure removes is gone from the store, too, so it waits for the disk.
RELAX = "SET LOCAL synchronous_commit = off"


def bulk_chore(settings: Settings) -> Chore:
    """What the workers do about bulk actions."""
    return Chore("bulk-actions", EVERY_SECONDS, lambda context: carry_out(settings, context))


async def carry_out(settings: Settings, context: ChoreContext) -> str | None:
    """Carry out what operators asked for, to its end. Returns what was done, in words.

    Raises:
        Exception: what one of them met with; the others were carried out.
    """
    looked_at, noted_at = 0, time.monotonic()
    trouble: dict[UUID, Exception] = {}
    while not context.stopping.is_set():
        running = [one for one in await rows.find_running(context.pool) if one not in trouble]
        if not running:
            break
        for action_id in running:
            began = time.monotonic()
            try:
                looked_at += await step(context.pool, settings, action_id)
            except Exception as error:  # noqa: BLE001 - raised in the end
                trouble[action_id] = error
            if began - noted_at > NOTE_EVERY_SECONDS:
                # Ends this run where another process has the chore by now.
                await context.note(f"{looked_at} emails looked at so far")
                noted_at = began
            await _rest(context, min(time.monotonic() - began, LONGEST_PAUSE_SECONDS))
    await _forget(context)
    if trouble:
        raise next(iter(trouble.values()))
    return f"{looked_at} emails looked at" if looked_at else None


async def step(pool: Pool, settings: Settings, action_id: UUID) -> int:
    """Do a bulk action to its next emails. Returns how many these were."""
    found = await rows.next_emails(pool, action_id)
    if found is None:
        return 0
    wish, position, emails = found
    if wish.action is Action.ERASE and emails:
        await erasure_records.begin_of_bulk(pool, action_id, by=wish.by)
        await erasing.mark(pool, [email for _, email in emails], action_id)
        await erasing.settle_writers(pool)
    with contextlib.suppress(MarkedTooEarlyError):
        async with pool.acquire() as connection, connection.transaction():
            if wish.action is not Action.ERASE:
                await connection.execute(RELAX)
            locked = await rows.next_emails(connection, action_id, for_update=True)
            if locked is None or locked[1] != position:
                # Stopped meanwhile, or another process was here.
                return 0
            if emails:
                ends = await act(connection, wish, [email for _, email in emails], settings)
                await rows.advance(connection, action_id, emails, ends, failure=REFUSED)
                await tell(connection)
                return len(emails)
            await connection.execute(rows.END, action_id)
            await tell(connection)
            if wish.action is Action.ERASE:
                await erasure_records.end(connection, action_id)
                await connection.execute(rows.FORGET_FILTER, action_id, ERASED_FILTER)
            log.info("bulk_action_ended", action=wish.action.value, id=str(action_id))
    return 0


async def _forget(context: ChoreContext) -> None:
    """Remove what is known of emails that are through."""
    for action_id, is_old in await rows.find_forgettable(context.pool):
        while await rows.forget(context.pool, action_id, is_old=is_old, limit=FORGOTTEN_AT_ONCE):
            if context.stopping.is_set():
                return


async def _rest(context: ChoreContext, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(context.stopping.wait(), seconds)
