"""The email that a handler is given, made of what its claim returned, and of no more than somebody
looks at: JSON is read when it is asked for, and what repeats the bodies in other words is not even
fetched for a handler that does not use it.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import structlog

from app.handlers.seam import Email
from app.models.fit import read_json

log = structlog.get_logger(__name__)

# As large as the email itself, and used by few handlers.
LATE = ("raw_payload", "original_body")
JSON = ("extracted_data", "attachment_urls", "attempt_errors", "raw_payload")
_AT_ONCE = [
    name for column in Email._meta.columns if (name := column._meta.name) not in {*LATE, *JSON}
]
_IF_ASKED = [*(name for name in JSON if name not in LATE), *LATE]
_OTHERS = {
    name: value for name, value in Email().__dict__.items() if name not in {*_AT_ONCE, *_IF_ASKED}
}

# Whether a handler uses them is known after so many emails.
EMAILS_TO_LEARN = 100


def columns_of_claim(is_late_wanted: str) -> str:
    """What a claim returns of `email`, in SQL: what `to_email` expects from its first column on."""
    late = (f"CASE WHEN {is_late_wanted} THEN email.{name} END AS {name}" for name in LATE)
    at_once = (f"email.{name}" for name in (*_AT_ONCE, *_IF_ASKED) if name not in LATE)
    return ", ".join((*at_once, *late))


# What fetches them of one email, while everything else waits: an attribute cannot be awaited.
FetchLate: TypeAlias = Callable[[UUID], Sequence[Any]]


class LateColumns:
    """Whether `raw_payload` and `original_body` are fetched with each email of this process.

    They are until a hundred emails went by at which no handler looked; and from then on, for good,
    once one does, for which they are fetched while it waits.
    """

    def __init__(self, fetch: FetchLate) -> None:
        self._fetch = fetch
        self._looked_at = False
        self._emails = 0

    @property
    def are_wanted(self) -> bool:
        """Whether the next claim is to return them."""
        return self._looked_at or self._emails < EMAILS_TO_LEARN

    def handled(self, emails: int) -> None:
        """So many emails went by."""
        self._emails += emails

    def look(self) -> None:
        """A handler looked at one that was fetched with its email."""
        self._looked_at = True

    def fetch(self, email_id: UUID) -> Sequence[Any]:
        """A handler looks at those of an email that came without.

        Raises:
            Retry: they cannot be had now.
        """
        self._looked_at = True
        log.info("late_columns_fetched", email_id=str(email_id))
        return self._fetch(email_id)


class _Columns(dict[str, Any]):
    """An email's attributes. Those that are missing are made when they are asked for."""

    __slots__ = ("_has_late", "_late", "_row")

    def __init__(self, row: "asyncpg.Record", first: int, late: LateColumns, has_late: bool):
        super().__init__(zip(_AT_ONCE, row[first : first + len(_AT_ONCE)], strict=True))
        self.update(_OTHERS)
        self._row, self._late, self._has_late = row, late, has_late

    def __missing__(self, name: str) -> Any:
        if name not in _IF_ASKED:
            raise KeyError(name)
        if name not in LATE:
            self[name] = read_json(self._row[name])
        elif self._has_late:
            self._late.look()
            self._keep_late([self._row[late] for late in LATE])
        else:
            self._keep_late(self._late.fetch(self["id"]))
        return self[name]

    def _keep_late(self, values: Any) -> None:
        for name, value in zip(LATE, values, strict=True):
            self.setdefault(name, read_json(value) if name in JSON else value)

    def __reduce__(self) -> tuple[Any, ...]:
        # For other processes: as a dictionary of everything.
        return dict, ([(name, self[name]) for name in (*_AT_ONCE, *_IF_ASKED, *_OTHERS)],)


def to_email(row: "asyncpg.Record", *, first: int, late: LateColumns, has_late: bool) -> Email:
    """The email of a claim.

    Args:
        first: where its columns begin in the row.
        has_late: whether the late ones were fetched with it.
    """
    # Piccolo's constructor looks at each column anew, which took longer than all else that an email
    # costs its worker.
    email = Email.__new__(Email)
    email.__dict__ = _Columns(row, first, late, has_late)
    return email
