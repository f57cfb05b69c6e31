"""Processing that is paused: nothing is claimed or sent, nothing is lost or taken for lost, and all
of it goes on when it is resumed."""

from datetime import timedelta
from typing import TypeAlias
from uuid import UUID, uuid4

import asyncpg
import one_email
import pytest
from support import make_settings

from app.handlers.loading import as_handler
from app.jobs import pausing
from app.jobs.claimer import Claimer
from app.jobs.leases import HeldClaims
from app.jobs.pausing import PausedAlreadyError, PauseError
from app.jobs.transitions import claiming, dispatching, keeping
from app.jobs.transitions.claiming import Claimed, Refusal
from app.models.incoming_email import IncomingEmail

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(seconds=60)


async def store(pool: Pool, status: str = "queued") -> UUID:
    """One email, with a message in the broker where it is queued."""
    email_id: UUID = await pool.fetchval(
        "INSERT INTO incoming_emails (processing_status, queued_at)"
        " VALUES ($1::text, CASE WHEN $1::text = 'queued' THEN now() END) RETURNING id",
        status,
    )
    return email_id


async def claim(pool: Pool, email_id: UUID, token: UUID | None = None) -> Claimed | Refusal:
    (made,) = await claiming.claim(
        pool, {email_id: token or uuid4()}, lease=LEASE, worker="w", most_bytes=1_000_000
    )
    return made


async def test_nothing_is_claimed_while_it_is_paused(pool: Pool) -> None:
    queued, ended = await store(pool), await store(pool, "completed")
    held, token = await store(pool), uuid4()
    assert isinstance(await claim(pool, held, token), Claimed)
    paused = await pausing.pause(pool, by="olga", reason="CRM moves")
    assert await pausing.find(pool) == paused
    assert await claim(pool, queued) is Refusal.PAUSED
    assert await claim(pool, ended) is Refusal.NO_WORK
    # Whose answer was lost has the claim all the same, and what runs keeps its lease.
    assert isinstance(await claim(pool, held, token), Claimed)
    assert await pausing.resume(pool) == paused
    assert await pausing.find(pool) is None
    assert isinstance(await claim(pool, queued), Claimed)


async def test_messages_that_come_are_given_back_and_wait_for_the_end_of_the_pause(
    pool: Pool,
) -> None:
    handled: list[UUID] = []

    async def handle(email: IncomingEmail) -> None:
        handled.append(email.id)

    email_ids = [await store(pool) for _ in range(3)]
    fresh = await store(pool, "received")
    await pausing.pause(pool, by="olga", reason="CRM moves")
    claimer = Claimer(
        make_settings(), as_handler(handle, threads=1), pool, HeldClaims(), one_email.late_columns()
    )
    await claimer.take(email_ids)
    await claimer.finish(10)
    assert handled == []
    assert await dispatching.queue(pool, limit=10, depth=10) == []
    # Neither does the Rescuer take them for lost, however long it lasts.
    await pool.execute("UPDATE incoming_emails SET updated_at = updated_at - interval '1 day'")
    lost = await keeping.rescue_unheard(
        pool, limit=10, lost_after=timedelta(seconds=-1), is_idle=True
    )
    assert lost == []
    rows = await pool.fetch("SELECT processing_status, claims, attempt_errors FROM incoming_emails")
    assert {(row["claims"], row["attempt_errors"]) for row in rows} == {(0, "[]")}
    await pausing.resume(pool)
    sent = await dispatching.queue(pool, limit=10, depth=10)
    assert {one.email_id for one in sent} == {*email_ids, fresh}


async def test_a_pause_has_a_reason_and_is_that_of_who_was_first(pool: Pool) -> None:
    for reason in ("", "  ", "x" * 501, "a NUL \0"):
        with pytest.raises(PauseError):
            await pausing.pause(pool, by="olga", reason=reason)
    await pausing.pause(pool, by="olga", reason="CRM moves")
    with pytest.raises(PausedAlreadyError):
        await pausing.pause(pool, by="oscar", reason="me too")
    pause = await pausing.find(pool)
    assert pause is not None
    assert (pause.who, pause.reason) == ("olga", "CRM moves")
    await pausing.resume(pool)
    with pytest.raises(PauseError):
        await pausing.resume(pool)
