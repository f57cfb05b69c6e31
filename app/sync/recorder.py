"""How deliveries ended, on its way into the database: many with one commit, and what they tell of
the receiver with them."""

from collections.abc import Sequence

import asyncpg
import attrs
import structlog

from app.database.errors import DATABASE_AWAY
from app.database.group_commit import GroupCommit
from app.sync.answers import Health
from app.sync.breaker import Breaker
from app.sync.claims import Source
from app.sync.transitions import End, Outcome, Result, let_next_go, record
from app.sync.verdict_results import uncounted

log = structlog.get_logger(__name__)

BATCH_ROWS = 500


@attrs.frozen
class Tried:
    """The end of a try, and what it tells of the receiver."""

    result: Result
    health: Health | None
    """None: nothing, or the breaker was told already."""
    request: int
    """Which request it was: one that failed is one failure, however many emails were in it."""
    reason: str
    """Why it failed, for the row of the receiver."""


@attrs.frozen
class Stored:
    """What became of the end of a try."""

    end: End
    result: Result
    """As it is recorded: no try of the email where others had found its receiver down."""


class Recorder(GroupCommit[Tried, Stored]):
    """Records how tries ended, in the event loop it is made in.

    Args:
        in_order: what waited for an email of its ticket is let go when that is through.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        breaker: Breaker,
        *,
        worker: str,
        in_order: bool,
    ) -> None:
        super().__init__(batch_rows=BATCH_ROWS)
        self._pool = pool
        self._breaker = breaker
        self._worker = worker
        self._in_order = in_order

    async def commit(self, rows: Sequence[Tried]) -> Sequence[Stored | Exception]:
        counts = await self._tell_breaker(rows)
        answers: dict[int, Stored | Exception] = {}
        for source in Source:
            places = [
                place for place, one in enumerate(rows) if one.result.claimed.source is source
            ]
            if not places:
                continue
            results = [_counted(rows[place], counts) for place in places]
            try:
                found = await record(self._pool, source, results, worker=self._worker)
            except DATABASE_AWAY:
                # The breaker was told, and may not be so twice.
                found = [End.BUSY] * len(results)
            except Exception as error:  # noqa: BLE001 - what the other table has, stands
                answers |= dict.fromkeys(places, error)
                continue
            answers |= dict(zip(places, map(Stored, found, results), strict=True))
            if self._in_order and source is Source.EMAILS:
                await self._let_next_go(results, found)
        return [answers[place] for place in range(len(rows))]

    async def _tell_breaker(self, rows: Sequence[Tried]) -> bool:
        """Returns whether failures are tries of their emails."""
        if any(one.health is Health.UP for one in rows):
            await self._breaker.succeed()
            return True
        down = [one for one in rows if one.health is Health.DOWN]
        if not down:
            return True
        requests = len({one.request for one in down})
        return await self._breaker.fail(requests, down[-1].reason)

    async def _let_next_go(self, results: Sequence[Result], ends: Sequence[End]) -> None:
        through = [
            result.claimed.id
            for result, end in zip(results, ends, strict=True)
            if end is End.RECORDED and result.outcome is not Outcome.LATER
        ]
        if not through:
            return
        try:
            await let_next_go(self._pool, through)
        except Exception as error:  # noqa: BLE001 - the ends are committed
            # What waits is looked at again after a while.
            log.warning("next_of_ticket_not_let_go", error=type(error).__name__)


def _counted(tried: Tried, counts: bool) -> Result:
    if counts or tried.health is not Health.DOWN:
        return tried.result
    # Others have found by now that the receiver is down.
    told = uncounted(tried.reason) if tried.result.counts else tried.result.told
    return attrs.evolve(tried.result, outcome=Outcome.LATER, delay=None, counts=False, told=told)
