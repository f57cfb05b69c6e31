"""How far each of Zendesk's lists has been looked through, in PostgreSQL: that outlives every
process, and is moved on only when what it passes is dealt with.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg
import attrs

Database: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record] "
    "| asyncpg.Pool[asyncpg.Record]"
)

ODDITIES_KEPT = 1_000
LONGEST_ODDITY = 100_000

FIND = "SELECT name, position, since, seen_until, ended_at FROM zendesk_cursors WHERE name = $1"
BEGIN = """
INSERT INTO zendesk_cursors (name, since, seen_until) VALUES ($1, $2, $2)
ON CONFLICT (name) DO UPDATE SET updated_at = now()
RETURNING name, position, since, seen_until, ended_at
"""
BEGIN_ANEW = """
INSERT INTO zendesk_cursors (name, since, seen_until) VALUES ($1, $2, $2)
ON CONFLICT (name) DO UPDATE SET
    position = NULL, since = $2, seen_until = $2, ended_at = NULL, trouble = NULL,
    updated_at = now()
RETURNING name, position, since, seen_until, ended_at
"""
MOVE = """
UPDATE zendesk_cursors
SET position = $2, looked_at = looked_at + $3, odd = odd + $4, updated_at = now()
WHERE name = $1
"""
COUNT = """
UPDATE zendesk_cursors SET found = found + $2, odd = odd + $3 WHERE name = $1
"""
END_ROUND = """
UPDATE zendesk_cursors
SET seen_until = greatest(seen_until, $2), ended_at = now(), trouble = NULL, updated_at = now()
WHERE name = $1
"""
SET_TROUBLE = """
UPDATE zendesk_cursors SET trouble = $2, updated_at = now() WHERE name = $1
"""
# A list is looked through more than once; what is odd in it is one thing all the same.
KEEP_ODD = """
INSERT INTO zendesk_oddities (kind, item)
SELECT DISTINCT $1, listed.item FROM unnest($2::text[]) AS listed (item)
WHERE NOT EXISTS (
    SELECT FROM zendesk_oddities AS known WHERE known.kind = $1 AND known.item = listed.item
)
RETURNING id
"""
FORGET_ODD = """
DELETE FROM zendesk_oddities WHERE id <= (
    SELECT id FROM zendesk_oddities ORDER BY id DESC OFFSET $1 LIMIT 1
)
"""


@attrs.frozen
class Cursor:
    """Where to go on."""

    name: str
    position: str | None
    """Zendesk's own cursor, in the middle of a round."""
    since: datetime
    seen_until: datetime
    """All that happened before has been looked at."""
    ended_at: datetime | None = None
    """When a round last came to its end."""


async def begin(database: Database, name: str, start: datetime, *, anew: bool = False) -> Cursor:
    """The cursor of this name; made at `start` where there is none, or where it is to be anew."""
    (record,) = await database.fetch(BEGIN_ANEW if anew else BEGIN, name, start)
    return Cursor(**record)


async def is_begun(database: Database, name: str) -> bool:
    """Whether there is a cursor of this name."""
    return await database.fetchrow(FIND, name) is not None


async def find(database: Database, name: str, start: datetime) -> Cursor:
    """The same, and nothing is written: where there is none, one that would begin at `start`."""
    record = await database.fetchrow(FIND, name)
    return Cursor(name, None, start, start) if record is None else Cursor(**record)


async def move(
    database: Database,
    name: str,
    position: str | None,
    *,
    looked_at: int = 0,
    odd: int = 0,
) -> None:
    """Go on to a position, with what was come by on the way."""
    await database.execute(MOVE, name, position, looked_at, odd)


async def count(database: Database, name: str, *, found: int, odd: int) -> None:
    """Count emails that were not here, and items of an unknown shape."""
    await database.execute(COUNT, name, found, odd)


async def end_round(database: Database, name: str, seen_until: datetime) -> None:
    """A round came to the end of the list."""
    await database.execute(END_ROUND, name, seen_until)


async def set_trouble(database: Database, name: str, trouble: str) -> None:
    """Say what is wrong, and how to mend it, until a round comes to its end."""
    await database.execute(SET_TROUBLE, name, trouble)


async def keep_odd(database: Database, kind: str, items: Sequence[Any]) -> int:
    """Keep items of a shape that nobody has seen, so that somebody can. Returns how many of them
    were not kept yet."""
    if not items:
        return 0
    texts = [json.dumps(item)[:LONGEST_ODDITY] for item in items]
    new = await database.fetch(KEEP_ODD, kind, texts)
    await database.execute(FORGET_ODD, ODDITIES_KEPT)
    return len(new)
