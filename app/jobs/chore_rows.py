"""The rows of chores: who does which, until when, and how it went. Nothing else writes them.

A row is a lease with a token, as a claim of an email is; no lock of a session is held, so it works
through a pooler that lends connections by the transaction.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.jobs.transitions.common import Database

ENLIST = """
INSERT INTO chores (name) SELECT unnest($1::text[]) ORDER BY 1 ON CONFLICT (name) DO NOTHING
"""

# What is to be done more often than before need not wait for the time that was set then.
HASTEN = """
UPDATE chores AS chore SET next_run_at = now() + pause
FROM unnest($1::text[], $2::interval[]) AS listed (name, pause)
WHERE chore.name = listed.name AND failures = 0 AND next_run_at > now() + pause
"""

# Whose process was killed has still its token. The clock is read after the row was locked.
TAKE = """
WITH due AS MATERIALIZED (
    SELECT name FROM chores
    WHERE name = ANY($1::text[]) AND (next_run_at <= now() OR $4)
        AND COALESCE(lease_expires_at <= now(), true)
    ORDER BY name
    FOR UPDATE SKIP LOCKED
)
UPDATE chores AS chore
SET token = gen_random_uuid(), lease_expires_at = clock_timestamp() + $2, running_by = $3,
    last_started_at = clock_timestamp(),
    failures = failures + CASE WHEN token IS NULL THEN 0 ELSE 1 END,
    last_error = CASE WHEN token IS NULL THEN last_error ELSE 'its process vanished' END
FROM due WHERE chore.name = due.name
RETURNING chore.name, chore.token, chore.failures
"""

# Who runs it now, where it could not be taken.
RUNNING_BY = "SELECT running_by FROM chores WHERE name = $1"

# Where workers run, what is overdue for an hour is no chore by their settings any more.
SELECT_ALL = """
SELECT name, failures, last_error, last_ok_at FROM chores
WHERE next_run_at > now() - interval '1 hour' OR token IS NOT NULL
    OR NOT EXISTS (SELECT FROM workers WHERE seen_at > now() - interval '1 minute')
ORDER BY name
"""

EXTEND = """
UPDATE chores AS chore SET lease_expires_at = now() + $3
FROM unnest($1::text[], $2::uuid[]) AS held (name, token)
WHERE chore.name = held.name AND chore.token = held.token
RETURNING chore.token
"""

NOTE = "UPDATE chores SET last_note = $3 WHERE name = $1 AND token = $2"

END = """
UPDATE chores
SET token = NULL, lease_expires_at = NULL, running_by = NULL,
    last_ended_at = now(), next_run_at = now() + $3,
    last_ok_at = CASE WHEN $4::text IS NULL THEN now() ELSE last_ok_at END,
    failures = CASE WHEN $4 IS NULL THEN 0 ELSE failures + 1 END,
    last_error = $4, last_note = COALESCE($5, last_note)
WHERE name = $1 AND token = $2
"""

GIVE_BACK = """
UPDATE chores
SET token = NULL, lease_expires_at = NULL, running_by = NULL, next_run_at = now()
WHERE name = $1 AND token = $2
"""


@attrs.frozen
class Taken:
    """The right to do a chore, for as long as its token stands."""

    name: str
    token: UUID
    failures: int
    """Runs before this one that did not end well."""


@attrs.frozen
class Standing:
    """How a chore stands."""

    name: str
    failures: int
    """Runs since it last ended well, none of which did."""
    last_error: str | None
    last_ok_at: datetime | None
    """When it last ended well."""


async def find_all(database: Database) -> list[Standing]:
    """How the chores of the workers stand; they are few."""
    return [Standing(*row) for row in await database.fetch(SELECT_ALL)]


async def enlist(database: Database, pauses: dict[str, timedelta]) -> None:
    """Make the rows that are missing; they are due at once.

    Args:
        pauses: by the name of each chore how long after its end it is due again.
    """
    await database.execute(ENLIST, list(pauses))
    await database.execute(HASTEN, list(pauses), list(pauses.values()))


async def take(
    database: Database,
    names: Collection[str],
    *,
    lease: timedelta,
    by: str,
    also_before_time: bool = False,
) -> list[Taken]:
    """Take those that are due and that nobody does."""
    rows = await database.fetch(TAKE, list(names), lease, by, also_before_time)
    return [Taken(*row) for row in rows]


async def find_runner(database: Database, name: str) -> str | None:
    """Which process does it now."""
    runner: str | None = await database.fetchval(RUNNING_BY, name)
    return runner


async def extend(database: Database, held: Sequence[Taken], *, lease: timedelta) -> set[UUID]:
    """Keep the leases. Returns the tokens of those that still stand."""
    names, tokens = [taken.name for taken in held], [taken.token for taken in held]
    return {row["token"] for row in await database.fetch(EXTEND, names, tokens, lease)}


async def note(database: Database, taken: Taken, text: str) -> bool:
    """Say how far it is. Returns whether the token stood, as those that follow do."""
    return _changed(await database.execute(NOTE, taken.name, taken.token, text))


async def end(
    database: Database, taken: Taken, *, pause: timedelta, error: str | None, text: str | None
) -> bool:
    """It ended, well if there is no error; it is due again after the pause."""
    return _changed(await database.execute(END, taken.name, taken.token, pause, error, text))


async def give_back(database: Database, taken: Taken) -> bool:
    """It is not done to its end here; another process may begin it at once."""
    return _changed(await database.execute(GIVE_BACK, taken.name, taken.token))


def _changed(tag: str) -> bool:
    return tag == "UPDATE 1"
