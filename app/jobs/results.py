"""Results of handlers on their way into the database: many with one commit.

What arrives while one statement is on its way shares the next. A result is durable before it counts
as done, and waits for a database that is away. None is held up by another: not by an email that
somebody has locked, nor by a value that PostgreSQL refuses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias

import asyncpg
import attrs
import structlog

from app.database.group_commit import ROW_ERRORS, GroupCommit
from app.jobs.patience import patiently
from app.jobs.transitions import ending
from app.jobs.transitions.common import Claim, Database
from app.jobs.transitions.ending import Completion, End, Failure, HandBack, LaterRetry, Result
from app.sync.asking import NOTHING, DeliveredEnds
from app.telemetry.metrics import FailureKind

log = structlog.get_logger(__name__)

BATCH_ROWS = 500
# Text of one statement: what several connections hold of it at once is no concern then.
BATCH_BYTES = 8 * 1024 * 1024
# An email is mostly locked by this process's own keeper, which extends its lease.
FIRST_BUSY_PAUSE_SECONDS = 0.02
LONGEST_BUSY_PAUSE_SECONDS = 1.0

Transition: TypeAlias = Callable[..., Awaitable[list[End]]]
# The ends of jobs, whose results may have to be delivered, and what only ends a claim.
ENDS: dict[type[Result], Transition] = {Completion: ending.complete, Failure: ending.fail}
OTHERS: dict[type[Result], Transition] = {
    LaterRetry: ending.retry_later,
    HandBack: ending.hand_back,
}


class Results(GroupCommit[Result, End]):
    """Records how claims ended, in the event loop it is made in.

    Args:
        pool: connections to the database.
        longest_pause: in seconds, before a database that is away is asked again.
        delivered: which ends are delivered.
        ring: called when some are to be.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        longest_pause: float,
        delivered: DeliveredEnds = NOTHING,
        ring: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(batch_rows=BATCH_ROWS)
        self._pool = pool
        self._longest_pause = longest_pause
        self._delivered = delivered
        self._ring = ring

    async def commit(self, results: Sequence[Result]) -> Sequence[End | Exception]:
        ends: dict[int, End | Exception] = {}
        for kind in (*ENDS, *OTHERS):
            places = [place for place, result in enumerate(results) if isinstance(result, kind)]
            for batch in _batches(places, results):
                batch_ends = await self._write(kind, [results[place] for place in batch])
                ends.update(zip(batch, batch_ends, strict=True))
            if places and kind in ENDS and self._ring is not None:
                self._ring()
        return [ends[place] for place in range(len(results))]

    async def _write(
        self, kind: type[Result], results: Sequence[Result]
    ) -> Sequence[End | Exception]:
        try:
            return await self._patiently(kind, results)
        except ROW_ERRORS as error:
            if len(results) > 1:
                # A result must not fail for another's fault.
                return [(await self._write(kind, [result]))[0] for result in results]
            (result,) = results
            log.error(
                "result_refused", email_id=str(result.claim.email_id), error=type(error).__name__
            )
            mended = _without_what_is_refused(result, error)
            return await self._patiently(type(mended), [mended])

    async def _patiently(self, kind: type[Result], results: Sequence[Result]) -> list[End]:
        return await patiently(
            (ENDS.get(kind) or OTHERS[kind]).__name__,
            lambda: _record(self._pool, kind, results, self._delivered),
            longest_pause=self._longest_pause,
        )


async def record_all(
    database: Database, results: Sequence[Result], *, delivered: DeliveredEnds = NOTHING
) -> set[Claim]:
    """Record results at once, and again those whose emails are locked, until none is.

    Args:
        delivered: which ends are delivered.

    Returns:
        The claims that still stood.

    Raises:
        Exception: the database is away, or refuses one.
    """
    left, stood = list(results), set[Claim]()
    while left:
        busy: list[Result] = []
        for kind in (*ENDS, *OTHERS):
            if batch := [result for result in left if isinstance(result, kind)]:
                ends = await _record(database, kind, batch, delivered)
                for result, end in zip(batch, ends, strict=True):
                    if end is End.BUSY:
                        busy.append(result)
                    elif end is End.RECORDED:
                        stood.add(result.claim)
        left = busy
        if left:
            await asyncio.sleep(FIRST_BUSY_PAUSE_SECONDS)
    return stood


async def _record(
    database: Database, kind: type[Result], results: Sequence[Result], delivered: DeliveredEnds
) -> list[End]:
    if kind in ENDS:
        return await ENDS[kind](database, results, delivered=delivered)
    return await OTHERS[kind](database, results)


def _batches(places: Sequence[int], results: Sequence[Result]) -> Iterator[list[int]]:
    """Parts of no more bytes than one statement may carry; of one result at least."""
    batch: list[int] = []
    size = 0
    for place in places:
        more = _characters(results[place])
        if batch and size + more > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += more
    if batch:
        yield batch


def _characters(result: Result) -> int:
    if isinstance(result, Completion):
        return len(result.extracted_data or "") + len(result.cleaned_body or "")
    return 0


def _without_what_is_refused(result: Result, error: Exception) -> Result:
    """What is recorded in place of a result whose values PostgreSQL does not take."""
    told = f"the database refuses what the handler found ({type(error).__name__})"
    match result:
        case Completion():
            return Failure(result.claim, error=told, kind=FailureKind.PERMANENT)
        case HandBack():
            return HandBack(result.claim)
        case _:
            return attrs.evolve(result, error=told)
