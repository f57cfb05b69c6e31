"""The transitions that take many claims, for tests of one."""

from datetime import timedelta
from typing import Any

from app.jobs.transitions import ending
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import STOPPED, Completion, End, Failure, HandBack, LaterRetry


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
