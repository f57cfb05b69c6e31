"""What takes many emails, for tests of one."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from app.jobs.claimed_email import LateColumns
from app.jobs.claimer import Claimer
from app.jobs.leases import Contact, HeldClaims
from app.jobs.rescuer import Rescuer
from app.jobs.transitions import claiming, ending
from app.jobs.transitions.claiming import Refusal
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import STOPPED, Completion, End, Failure, HandBack, LaterRetry


async def claim(
    database: Any,
    email_id: UUID,
    *,
    lease: timedelta,
    worker: str,
    token: UUID | None = None,
    suspects: bool = True,
    takes_over: bool = True,
) -> tuple[Claim, Any] | Refusal:
    """Claim it. Returns the claim and the columns of the email, or why there is none."""
    (made,) = await claiming.claim(
        database,
        {email_id: token or uuid4()},
        lease=lease,
        worker=worker,
        suspects=suspects,
        takes_over=takes_over,
        most_bytes=1_000_000,
    )
    return made if isinstance(made, Refusal) else (made.claim, made.columns)


async def process(claimer: Claimer, *email_ids: UUID) -> None:
    """Have emails processed to their ends, as a message asks for them."""
    await claimer.take(email_ids)
    names = {"busy", *(f"suspect-{email_id}" for email_id in email_ids)}
    while tasks := {task for task in claimer._tasks if task.get_name() in names}:
        await asyncio.wait(tasks)
    await claimer._processor.wait_for(email_ids)


def late_columns() -> LateColumns:
    """For handlers that look at all that is fetched, or at nothing."""

    def refuse(email_id: UUID) -> Sequence[Any]:
        raise AssertionError("they were not fetched with the email")

    return LateColumns(refuse)


async def rescue(database: Any, *, lost_after: timedelta = timedelta(minutes=2)) -> int:
    """Bring back what is stuck, as a process does that has had contact for long, and nothing to do
    at two looks. Returns how many emails were brought back."""
    held = HeldClaims()
    held.contact = Contact(since=-1e9, last=1e18)
    rescuer = Rescuer(held, lease=timedelta(minutes=1), lost_after=lost_after, concurrency=1)
    return await rescuer.run_once(database) + await rescuer.run_once(database)


def each(send: Callable[[UUID], object]) -> Callable[[Sequence[UUID]], None]:
    """What a Dispatcher sends with, of a function that sends one email."""

    def send_each(email_ids: Sequence[UUID]) -> None:
        for email_id in email_ids:
            send(email_id)

    return send_each


async def complete(
    database: Any, claim: Claim, *, extracted_data: str | None, cleaned_body: str | None
) -> bool:
    """Complete it. Returns whether the claim still stood, as the others do."""
    return _stood(
        await ending.complete(database, [Completion(claim, extracted_data, cleaned_body)])
    )


async def retry_later(database: Any, claim: Claim, *, error: str, delay: timedelta) -> bool:
    return _stood(await ending.retry_later(database, [LaterRetry(claim, error, delay)]))


async def fail(database: Any, claim: Claim, *, error: str) -> bool:
    return _stood(await ending.fail(database, [Failure(claim, error)]))


async def hand_back(database: Any, claim: Claim, *, reason: str = STOPPED) -> bool:
    return _stood(await ending.hand_back(database, [HandBack(claim, reason)]))


def _stood(ends: list[End]) -> bool:
    (end,) = ends
    assert end is not End.BUSY
    return end is End.RECORDED
