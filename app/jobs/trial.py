"""A run of a handler that is only tried: what a worker would record of it is told, and nothing is
recorded. `mailroom handler run` and the tests of handlers do it so."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import attrs
import httpx2

from app.handlers.context import Context
from app.handlers.loading import Handler
from app.handlers.running import run
from app.handlers.seam import Email
from app.jobs.outcome import Outcome, outcome_of, result_of
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import LaterRetry
from app.settings import Settings
from app.telemetry.metrics import FailureKind

# What a cancelled handler gets for its clean-up, as in a worker.
CANCEL_SECONDS = 5.0


class TrialOutcome(StrEnum):
    """What would become of the email."""

    COMPLETED = "completed"
    RETRIED = "retried"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class Trial:
    """How a run ended, and what a worker would record of it."""

    outcome: TrialOutcome
    seconds: float
    """What the run took."""
    extracted_data: Any
    """What was returned, as it comes back from the database; None where it is not completed."""
    cleaned_body: str | None
    error: str | None
    """As it would stand in the email's story; None where it is completed."""
    retry_after: float | None
    """The pause before the next attempt in seconds, where there is one."""
    progress: list[str]
    """What was told by `context.progress`; a worker keeps the last one."""
    exception: BaseException | None = attrs.field(repr=False)
    """What the handler raised."""


async def try_handler(
    handler: Handler,
    email: Email,
    settings: Settings,
    *,
    client: Callable[[], httpx2.AsyncClient],
    attempt: int = 1,
    seconds: float | None = None,
    is_dry_run: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Trial:
    """Run a handler on an email as a worker does, and record nothing.

    Args:
        client: makes the handler's HTTP client.
        attempt: which one it is told that this is; 1 is the first.
        seconds: what it may take; None: as the settings say.
        tell: is called with each progress, too.
    """
    limit = settings.handler_timeout_seconds if seconds is None else seconds
    told: list[str] = []

    def note(text: str) -> None:
        told.append(text)
        tell(text)

    raised: list[BaseException] = []

    async def call() -> str | None:
        context = Context(
            email_id=email.id,
            attempt=attempt,
            seconds=limit,
            tell=note,
            client=client,
            is_dry_run=is_dry_run,
        )
        try:
            return await run(handler, email, context)
        except BaseException as error:
            raised.append(error)
            raise

    body = email.cleaned_body
    began = time.monotonic()
    task = asyncio.create_task(outcome_of(call()))
    await asyncio.wait({task}, timeout=limit)
    if task.done():
        outcome = task.result()
    else:
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_SECONDS)
        outcome = Outcome(
            error=f"the handler did not finish within {limit:g} seconds", kind=FailureKind.TIMEOUT
        )
    taken = time.monotonic() - began
    # What a thread told last.
    await asyncio.sleep(0)
    exception = raised[0] if raised else None
    if outcome.error is None:
        data = json.loads(outcome.extracted_data) if outcome.extracted_data else None
        return Trial(
            outcome=TrialOutcome.COMPLETED,
            seconds=taken,
            extracted_data=data,
            cleaned_body=email.cleaned_body,
            error=None,
            retry_after=None,
            progress=told,
            exception=None,
        )
    result = result_of(settings, Claim(email.id, datetime.now(UTC), attempt - 1, 0), outcome)
    is_retried = isinstance(result, LaterRetry)
    return Trial(
        outcome=TrialOutcome.RETRIED if is_retried else TrialOutcome.FAILED,
        seconds=taken,
        extracted_data=None,
        cleaned_body=body,
        error=result.error,
        retry_after=result.delay.total_seconds() if isinstance(result, LaterRetry) else None,
        progress=told,
        exception=exception,
    )
