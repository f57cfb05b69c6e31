"""How the two lines behind the webhook stand: for metrics and for the overview."""

from datetime import timedelta

import attrs

from app.zendesk.cursors import Database
from app.zendesk.invocation_rows import CURSOR, count_waiting

SELECT = f"""
SELECT CASE WHEN name LIKE '{CURSOR}%' THEN 'invocations' ELSE name END AS line,
    now() - min(ended_at) AS lag, sum(found)::bigint AS found, sum(odd)::bigint AS odd,
    min(trouble) AS trouble
FROM zendesk_cursors WHERE name = 'tickets' OR name LIKE '{CURSOR}%'
GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - constants
COUNT_BACKFILLED = """
SELECT coalesce(sum(found), 0)::bigint FROM zendesk_cursors WHERE name LIKE 'backfill %'
"""


@attrs.frozen
class Line:
    """One of the lines."""

    name: str
    """`invocations` or `tickets`."""
    lag: timedelta | None
    """Since it last came to the end of its list; None where it never did."""
    found: int
    """Emails so far that no webhook had brought."""
    odd: int
    """Items so far of a shape that nobody has seen."""
    trouble: str | None
    """What is wrong, and how to mend it."""


@attrs.frozen
class Gaps:
    """Both lines; none where nobody has looked yet."""

    lines: list[Line]
    waiting: int
    """Calls that were not delivered, and that nobody has looked into."""
    backfilled: int
    """Emails so far that `mailroom backfill` found."""


async def find_gaps(database: Database) -> Gaps:
    """Look at the cursors, which are few."""
    rows = await database.fetch(SELECT)
    lines = [
        Line(row["line"], row["lag"], row["found"], row["odd"], row["trouble"]) for row in rows
    ]
    backfilled = await database.fetchval(COUNT_BACKFILLED)
    return Gaps(lines, await count_waiting(database), backfilled)
