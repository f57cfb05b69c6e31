"""The entries of `attempt_errors`: what an email met with, bounded in number.

Whoever adds one does it by these expressions of SQL, so that no row grows without end. Whoever
tells of them reads them here, and fails by nothing that stands in the column.
"""

import json
from datetime import datetime
from typing import Any

import attrs

from app.models.fit import in_utc, read_json

# An email that fails or is handed back again and again must not grow without end. Its first entries
# tell how it began, the newest how it stands.
MOST_ENTRIES = 50
FIRST_ENTRIES = 10
_NEWEST = MOST_ENTRIES - FIRST_ENTRIES - 2

# All as SQL; the second is as PostgreSQL writes one into JSON.
ENTRIES = "CASE WHEN jsonb_typeof(attempt_errors) = 'array' THEN attempt_errors ELSE '[]' END"
_MOMENT = (
    r"^[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
    r"(Z|[+-](0\d|1[0-4]):[0-5]\d)$"
)


def told(entry: str) -> str:
    """The attempt errors with one more entry, in SQL. The one after the first entries says how
    many were left out, where there are more than are kept."""
    marker = f"attempt_errors -> {FIRST_ENTRIES}"
    left_out = f"""COALESCE(({marker} ->> 'left_out')::int - 1, 0)
        + jsonb_array_length(attempt_errors) - {FIRST_ENTRIES + _NEWEST}"""
    return f"""CASE
        WHEN jsonb_typeof(attempt_errors) <> 'array'
        THEN jsonb_build_array(attempt_errors, {entry})
        WHEN jsonb_array_length(attempt_errors) < {MOST_ENTRIES}
        THEN attempt_errors || jsonb_build_array({entry})
        ELSE jsonb_path_query_array(attempt_errors, '$[0 to {FIRST_ENTRIES - 1}]')
            || jsonb_build_array(jsonb_build_object(
                'at', attempt_errors -> -{_NEWEST + 1} -> 'at', 'attempt', 0,
                'error', format('left out here: %s entries', {left_out}), 'left_out', {left_out}))
            || jsonb_path_query_array(attempt_errors, '$[last-{_NEWEST - 1} to last]')
            || jsonb_build_array({entry})
        END"""


def moment_of(entry: str, name: str) -> str:
    """A moment of an entry, in SQL; null where there is none that PostgreSQL can read."""
    return f"""CASE WHEN {entry} ->> '{name}' ~ '{_MOMENT}'
        THEN ({entry} ->> '{name}')::timestamptz END"""


def noted(error: str) -> str:
    """The attempt errors with what happened to the email besides its attempts. `error` is SQL."""
    return told(f"jsonb_build_object('at', now(), 'attempt', 0, 'error', {error})")


@attrs.frozen
class Entry:
    """What an email met with. What is none of ours is one, too: its JSON is told as its error."""

    at: datetime | None
    """None where that is not known."""
    attempt: int
    """0 is what happened besides the attempts."""
    error: str
    started_at: datetime | None = None
    worker: str | None = None
    next_attempt_at: datetime | None = None


def read_entries(column: str) -> list[Entry]:
    """The entries that the JSON of `attempt_errors` holds, in its order."""
    found = read_json(column)
    return [_entry(item) for item in (found if isinstance(found, list) else [found])]


def _entry(item: Any) -> Entry:
    fields = item if isinstance(item, dict) else {}
    at, error, attempt, worker = map(fields.get, ("at", "error", "attempt", "worker"))
    return Entry(
        at=_moment(at),
        attempt=attempt if isinstance(attempt, int) else 0,
        error=error if isinstance(error, str) else json.dumps(item, ensure_ascii=False),
        started_at=_moment(fields.get("started_at")),
        worker=worker if isinstance(worker, str) else None,
        next_attempt_at=_moment(fields.get("next_attempt_at")),
    )


def _moment(value: Any) -> datetime | None:
    try:
        return in_utc(datetime.fromisoformat(value)) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
