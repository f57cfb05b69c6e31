"""`mailroom sync`."""

import asyncpg
import click

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import Database, Pool, in_steps, in_transaction, result_of, write
from app.cli.acting import by, command_actor
from app.cli.database_access import run_with_pool
from app.cli.printing import say
from app.database.engine import DB
from app.errors import MailroomError
from app.models.delivery import BreakerState
from app.settings import Settings, get_settings
from app.sync import breaker
from app.sync.breaker import receiver_name
from app.sync.cancelling import cancel as go_through
from app.sync.counts import Deliveries, count_deliveries
from app.sync.function import load_function
from app.sync.receiver import check_receiver
from app.sync.refusals import find_refusal

# More are not counted: the answer is to come at once.
MOST_COUNTED = 100_000

MEND_REFUSAL = (
    "see that MAILROOM_SYNC_URL is right and that it knows MAILROOM_SYNC_SECRETS; what it refused "
    "is tried again by itself"
)
WAITING = """
SELECT count(*) AS emails, min(completed_at) AS oldest FROM (
    SELECT completed_at FROM incoming_emails WHERE sync_status = 'pending' LIMIT $1
) AS counted
"""
COUNT_WAITING = "SELECT count(*) FROM incoming_emails WHERE sync_status = 'pending'"


class NowhereError(MailroomError):
    """Nothing is delivered."""


class NotDeliveredError(MailroomError):
    """The receiver is not delivered to now."""


class DeliversError(MailroomError):
    """Finished emails are delivered."""


async def see_delivery(settings: Settings) -> str:
    """See that finished emails can be delivered, for `mailroom doctor`.

    Raises:
        MailroomError: they cannot; the message says why and how to mend it.
    """
    if not settings.delivers:
        connection = await DB.get_new_connection()
        try:
            waiting = await find_left_waiting(connection)
        finally:
            await connection.close()
        if waiting is not None:
            raise NotDeliveredError(waiting)
        return "finished emails go nowhere: without MAILROOM_SYNC_URL nothing is delivered"
    name = receiver_name(settings)
    if settings.sync:
        load_function(settings.sync)
    else:
        await check_receiver(settings)
    connection = await DB.get_new_connection()
    try:
        stands = await breaker.read(connection, name)
        refusal = await find_refusal(connection, name)
    finally:
        await connection.close()
    if stands is None:
        return f"{name} may be called; no worker has delivered anything to it yet"
    if stands["paused_at"] is not None:
        raise NotDeliveredError(
            f"{name} wants nothing more ({stands['pause_reason']}): once it is back, type "
            "`mailroom sync resume`"
        )
    if stands["state"] != BreakerState.CLOSED:
        raise NotDeliveredError(f"{name} is down: {stands['reason']}")
    if stands["is_resting"]:
        raise NotDeliveredError(
            f"{name} asked to be left alone until {stands['rests_until']:%Y-%m-%d %H:%M:%S} "
            f"({stands['reason']}): it is delivered to by itself then, or at once with "
            "`mailroom sync resume`"
        )
    if refusal is not None:
        raise NotDeliveredError(
            f"{name} refuses what it is sent ({refusal.reason}): {MEND_REFUSAL}"
        )
    return f"{name} is delivered to"


async def find_left_waiting(database: Database) -> str | None:
    """Say how many emails wait for their delivery where nothing is delivered, and how to mend it.
    None: none does."""
    waiting = await database.fetchrow(WAITING, MOST_COUNTED)
    if waiting is None or not waiting["emails"]:
        return None
    count = f"{waiting['emails']}{_or_more(waiting['emails'])}"
    return (
        f"nothing is delivered, and {count} emails wait for that, which holds back their removal: "
        "set MAILROOM_SYNC_URL, or call their deliveries off by `mailroom sync cancel --apply`"
    )


@click.group()
def sync() -> None:
    """Look after the delivery of finished emails."""


@sync.command()
def status() -> None:
    """Say how the receiver stands. Exits with 0 if it is delivered to."""
    name = _receiver()

    async def read(
        pool: "asyncpg.Pool[asyncpg.Record]",
    ) -> tuple[dict[str, object] | None, asyncpg.Record | None, Deliveries]:
        counts = await count_deliveries(pool, name, at_most=MOST_COUNTED)
        return await breaker.read(pool, name), await pool.fetchrow(WAITING, MOST_COUNTED), counts

    stands, waiting, counts = run_with_pool(read)
    say(f"receiver: {name}")
    if waiting is not None and waiting["emails"]:
        more = _or_more(waiting["emails"])
        oldest = f", the oldest ended at {waiting['oldest']:%Y-%m-%d %H:%M}"
        say(f"{waiting['emails']}{more} emails are to be delivered{oldest}")
    if counts.untold:
        say(f"{counts.untold}{_or_more(counts.untold)} erasures are to be told to it")
    if counts.never_told:
        more = _or_more(counts.never_told)
        say(f"{counts.never_told}{more} erasures it could not be told: mailroom reconcile")
    if stands is None:
        say("no worker has delivered anything to it yet")
    elif stands["paused_at"] is not None:
        say(f"paused, because it wants nothing more: {stands['pause_reason']}")
        say("once it is back: mailroom sync resume")
    elif stands["state"] != "closed":
        say(f"down since {stands['opened_at']:%Y-%m-%d %H:%M}: {stands['reason']}")
        say(f"next probe: {stands['probed_from']:%Y-%m-%d %H:%M:%S}")
    elif stands["is_resting"]:
        until = f"{stands['rests_until']:%Y-%m-%d %H:%M:%S}"
        say(f"left alone until {until}, as it asked by Retry-After: {stands['reason']}")
        say("to deliver to it at once: mailroom sync resume")
    elif counts.refusal is not None:
        say(f"it refuses what it is sent: {counts.refusal.reason}")
        say(MEND_REFUSAL)
    else:
        say("it is delivered to")
        raise SystemExit(0)
    raise SystemExit(1)


@sync.command()
def resume() -> None:
    """Deliver again at once, after a pause (410), or while the receiver counts as down or rests."""
    name = _receiver()

    actor = command_actor()

    async def resume(database: Database) -> bool:
        async with in_transaction(database) as connection:
            is_known = await breaker.resume(connection, name)
            await write(connection, actor, Act.RECEIVER_RESUME, [name], result=result_of(is_known))
        return is_known

    if not run_with_pool(resume):
        raise NowhereError(f"no worker has delivered anything to {name} yet: see that one runs")
    say(f"{name} is delivered to again")


@sync.command()
@click.option("--apply", "applies", is_flag=True, help="Call them off; else they are only counted.")
def cancel(applies: bool) -> None:
    """Call off the deliveries that wait, once finished emails go nowhere any more.

    Only without MAILROOM_SYNC_URL and MAILROOM_SYNC. What is not delivered holds back its removal
    by age. Should you deliver again one day, `mailroom reconcile` finds these emails, too.

    It may be stopped at any time and run again. Exits with 0 if none waits any more.
    """
    if get_settings().delivers:
        raise DeliversError(
            "finished emails are delivered: empty MAILROOM_SYNC_URL, MAILROOM_SYNC_CHECK_URL and "
            "MAILROOM_SYNC, for the workers, too, before you call deliveries off"
        )
    actor = command_actor()
    found, cancelled, waiting = run_with_pool(lambda pool: _cancel(pool, actor, applies=applies))
    if not applies:
        say(f"would be called off: {found}" + (" (do it with --apply)" if found else ""))
    else:
        say(f"called off: {cancelled}")
    left = waiting if applies else waiting - found
    if left > 0:
        say(f"in other hands right now, being sent or in a job again: {left}. Run it again later")
    raise SystemExit(1 if waiting else 0)


async def _cancel(pool: Pool, actor: Actor, *, applies: bool) -> tuple[int, int, int]:
    """Returns how many were found, called off, and wait in the end."""

    async def go() -> tuple[int, int]:
        found = cancelled = 0
        async for step in go_through(pool, applies=applies, by=by()):
            found += step.found
            cancelled += step.cancelled
        return found, cancelled

    if applies:
        async with in_steps(pool, actor, Act.DELIVERY_CANCEL) as steps:
            found, steps.count = await go()
        cancelled = steps.count
    else:
        found, cancelled = await go()
    return found, cancelled, await pool.fetchval(COUNT_WAITING)


def _or_more(count: int) -> str:
    return " or more" if count == MOST_COUNTED else ""


def _receiver() -> str:
    settings = get_settings()
    if not settings.delivers:
        raise NowhereError("nothing is delivered: MAILROOM_SYNC_URL and MAILROOM_SYNC are empty")
    return receiver_name(settings)
