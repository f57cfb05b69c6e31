"""Whether what was promised holds: of what was answered 200 against what is stored."""

from collections import Counter
from collections.abc import Collection, Mapping
from uuid import UUID

import attrs

ENDS = ("completed", "failed")


@attrs.frozen
class Verdict:
    """What became of the emails of a load."""

    states: Counter[str]
    """How many of those stored are in which state."""
    lost: frozenset[UUID]
    """Answered 200, and not stored."""
    twice: frozenset[UUID]
    """Stored, and of no answer. A webhook is sent until its email's id comes, so what nobody was
    told of was stored beside it."""

    @property
    def unfinished(self) -> int:
        """How many are neither completed nor failed."""
        return sum(self.states.values()) - sum(self.states[state] for state in ENDS)

    @property
    def keeps_promises(self) -> bool:
        """Whether each is there, once, and has ended."""
        return not (self.lost or self.twice or self.unfinished)


def judge(
    accepted: Collection[UUID], stored: Mapping[UUID, str], given_up: Collection[UUID] = ()
) -> Verdict:
    """Compare.

    Args:
        accepted: the ids that were answered.
        stored: the state of each email of the load.
        given_up: the ids of emails that are stored, and whose answers nobody waited for.
    """
    return Verdict(
        states=Counter(stored.values()),
        lost=frozenset(accepted) - stored.keys(),
        twice=frozenset(stored.keys() - {*accepted, *given_up}),
    )
