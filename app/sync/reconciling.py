"""Goes through emails that have ended, and has delivered again what differs from its delivery.

It goes in stretches, each by statements of its own: whoever stops it has what is done so far, and
runs it again. The command `mailroom reconcile` and the API are this one function.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import TypeAlias
from uuid import UUID

import attrs

from app.errors import MailroomError
from app.models.incoming_email import ProcessingStatus
from app.sync.differences import (
    NOTHING_DIFFERS,
    Database,
    Difference,
    Looked,
    Place,
    Which,
    count_untold,
    deliver,
    find,
    tell,
)

STRETCH = 2_000
# Of which the receiver is asked by one request: each may take long, and who asks by the API goes on
# by another one.
ASKED_AT_ONCE = 500
# A statement that changes more holds its locks for too long.
BATCH = 500
UNSYNCED = {Difference.OVERDUE, Difference.FAILED}
BEFORE_ALL = UUID(int=0)


class ReceiverCheckError(MailroomError):
    """The receiver does not say which deliveries it has."""


Asks: TypeAlias = Callable[[Sequence[Looked]], Awaitable[set[UUID]]]
"""Asks the receiver which of these emails, ASKED_AT_ONCE at most, it has; raises
ReceiverCheckError."""


@attrs.frozen(kw_only=True)
class Reconciliation:
    """What is looked for, and what is done about it."""

    which: Which
    differences: Collection[Difference]
    states: Sequence[ProcessingStatus]
    """Ends of jobs that are delivered."""
    applies: bool
    """Have it delivered; else it is only counted."""
    by: str


@attrs.frozen
class Step:
    """What one stretch brought."""

    looked_at: int
    found: Counter[Difference]
    delivered: int
    """How many are to be delivered now."""
    place: Place | None
    """After which the next stretch begins; None: this was the last."""
    trouble: ReceiverCheckError | None = None
    """Why the receiver is not asked from now on; what differs besides is found all the same."""


async def reconcile(
    database: Database,
    reconciliation: Reconciliation,
    *,
    asks: Asks | None = None,
    after: Place | None = None,
) -> AsyncGenerator[Step, None]:
    """Go through all that is meant, stretch by stretch, in the order in which it ended.

    Args:
        asks: needed for `Difference.LACKING`.
        after: where an earlier run came to.
    """
    states = list(reconciliation.states)
    place = after or _beginning(reconciliation, states[0])
    if after is None and _looks_for_untold(reconciliation):
        untold = await count_untold(database, reconciliation.which)
        told = await tell(database, reconciliation.which) if reconciliation.applies else 0
        yield Step(0, Counter({Difference.UNTOLD: untold}), told, place)
    unsynced_alone = UNSYNCED.issuperset(reconciliation.differences)
    if Difference.LACKING not in reconciliation.differences:
        asks = None
    while True:
        limit = STRETCH if asks is None else ASKED_AT_ONCE
        stretch = await find(
            database, reconciliation.which, place, limit=limit, unsynced_alone=unsynced_alone
        )
        # What the columns tell is mended whether the receiver can be asked or not.
        found = _differing(stretch, reconciliation.differences)
        delivered = await _deliver(database, reconciliation, found)
        trouble = None
        if asks is not None:
            try:
                lacking = await _lacking(stretch, found, asks)
            except ReceiverCheckError as error:
                trouble, asks = error, None
            else:
                delivered += await _deliver(database, reconciliation, lacking)
                found += lacking
        is_last = len(stretch) < limit
        following = _following(reconciliation, states, place, None if is_last else stretch[-1])
        counts = Counter(one for _, one in found)
        yield Step(len(stretch), counts, delivered, following, trouble)
        if following is None:
            return
        place = following


def _looks_for_untold(reconciliation: Reconciliation) -> bool:
    """Of what was erased, neither ticket nor sender is known any more."""
    which = reconciliation.which
    is_of_somebody = which.ticket_id is not None or which.from_email is not None
    return Difference.UNTOLD in reconciliation.differences and not is_of_somebody


def _beginning(reconciliation: Reconciliation, status: ProcessingStatus) -> Place:
    return Place(status, reconciliation.which.since, BEFORE_ALL)


def _following(
    reconciliation: Reconciliation,
    states: Sequence[ProcessingStatus],
    place: Place,
    last: Looked | None,
) -> Place | None:
    if last is not None:
        return Place(place.status, last.completed_at, last.id)
    left = states[states.index(place.status) + 1 :]
    return _beginning(reconciliation, left[0]) if left else None


def _differing(
    stretch: Sequence[Looked], wanted: Collection[Difference]
) -> list[tuple[UUID, Difference]]:
    found = [
        (looked.id, Difference(looked.difference))
        for looked in stretch
        if looked.difference not in (None, NOTHING_DIFFERS) and looked.difference in wanted
    ]
    if Difference.CHOSEN in wanted:
        found += [(looked.id, Difference.CHOSEN) for looked in _same(stretch)]
    return found


async def _lacking(
    stretch: Sequence[Looked], found: Sequence[tuple[UUID, Difference]], asks: Asks
) -> list[tuple[UUID, Difference]]:
    chosen = {email_id for email_id, _ in found}
    same = [looked for looked in _same(stretch) if looked.id not in chosen]
    there = await asks(same) if same else set()
    return [(looked.id, Difference.LACKING) for looked in same if looked.id not in there]


def _same(stretch: Sequence[Looked]) -> list[Looked]:
    return [looked for looked in stretch if looked.difference == NOTHING_DIFFERS]


async def _deliver(
    database: Database, reconciliation: Reconciliation, found: Sequence[tuple[UUID, Difference]]
) -> int:
    """Returns how many are to be delivered now."""
    if not reconciliation.applies:
        return 0
    delivered = 0
    for start in range(0, len(found), BATCH):
        delivered += len(
            await deliver(
                database,
                found[start : start + BATCH],
                overdue_after=reconciliation.which.overdue_after,
                by=reconciliation.by,
            )
        )
    return delivered
