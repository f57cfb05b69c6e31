"""Alarms as rows: they begin, are seen again, and end. Whoever finds something wrong says so here,
as often as it is found; that it is told once is the herald's work.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.models.alarm import AlarmKind

log = structlog.get_logger(__name__)

Database: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record] "
    "| asyncpg.Pool[asyncpg.Record]"
)

BEGIN = """
INSERT INTO alarms (id, kind, key, text, mend, since, last_seen_at)
VALUES (gen_random_uuid(), $1, $2, $3, $4, now(), now())
ON CONFLICT (kind, key) WHERE closed_at IS NULL DO UPDATE SET
    text = excluded.text, mend = excluded.mend, last_seen_at = excluded.last_seen_at,
    ended_at = NULL
RETURNING id, xmax = 0 AS is_new
"""
END = """
UPDATE alarms SET ended_at = now()
WHERE kind = $1 AND key = $2 AND ended_at IS NULL AND closed_at IS NULL
RETURNING id
"""
END_OTHERS = """
UPDATE alarms SET ended_at = now()
WHERE kind = $1 AND key <> ALL($2::text[]) AND ended_at IS NULL AND closed_at IS NULL
RETURNING id
"""
SELECT_OPEN = """
SELECT alarms.id, kind, key, text, mend, since, ended_at, (
    SELECT error FROM alarm_notices AS notice
    WHERE notice.alarm = alarms.id AND notice.state = 'pending' AND error IS NOT NULL
    ORDER BY notice.id LIMIT 1
) AS not_told_because
FROM alarms
WHERE ended_at IS NULL AND closed_at IS NULL
ORDER BY since, id
LIMIT $1
"""
SELECT_LATEST = """
SELECT id, kind, key, text, mend, since, ended_at, NULL AS not_told_because
FROM alarms WHERE closed_at IS NOT NULL OR ended_at IS NOT NULL
ORDER BY since DESC, id
LIMIT $1
"""
COUNT_OPEN = """
SELECT kind, count(*) AS alarms FROM alarms
WHERE ended_at IS NULL AND closed_at IS NULL
GROUP BY kind
"""
SHOWN_AT_MOST = 50


@attrs.frozen
class Trouble:
    """What is wrong, and what to do about it; in words without personal data."""

    text: str
    mend: str


@attrs.frozen
class OpenAlarm:
    """An alarm as it is shown."""

    id: UUID
    kind: str
    """As a newer version may have it, too."""
    key: str
    text: str
    mend: str
    since: datetime
    ended_at: datetime | None
    not_told_because: str | None
    """Why those who are to be told could not be reached; the others may have been told."""

    @property
    def duration(self) -> timedelta | None:
        """How long it lasted; None while it does."""
        return None if self.ended_at is None else self.ended_at - self.since


async def begin(database: Database, kind: AlarmKind, trouble: Trouble, *, key: str = "") -> None:
    """Something is wrong: it begins now, or is seen again.

    Args:
        key: which of its kind, where there may be several at once.
    """
    row = await database.fetchrow(BEGIN, kind, key, trouble.text, trouble.mend)
    if row is not None and row["is_new"]:
        log.warning("alarm_began", kind=kind.value, alarm_id=str(row["id"]))


async def end(database: Database, kind: AlarmKind, *, key: str = "") -> None:
    """It is over, if it had begun."""
    if ended := await database.fetchval(END, kind, key):
        log.info("alarm_ended", kind=kind.value, alarm_id=str(ended))


async def keep(database: Database, kind: AlarmKind, found: Mapping[str, Trouble]) -> None:
    """Of this kind just these are wrong now, by their keys; all others of it are over."""
    for key, trouble in found.items():
        await begin(database, kind, trouble, key=key)
    for row in await database.fetch(END_OTHERS, kind, list(found)):
        log.info("alarm_ended", kind=kind.value, alarm_id=str(row["id"]))


async def find_open(database: Database) -> list[OpenAlarm]:
    """What is wrong now, the oldest first."""
    return [OpenAlarm(**row) for row in await database.fetch(SELECT_OPEN, SHOWN_AT_MOST)]


async def find_latest(database: Database, limit: int) -> list[OpenAlarm]:
    """What is over, the latest first."""
    return [OpenAlarm(**row) for row in await database.fetch(SELECT_LATEST, limit)]


async def count_open(database: Database) -> dict[AlarmKind, int]:
    """How many alarms there are of each kind."""
    rows = {row["kind"]: row["alarms"] for row in await database.fetch(COUNT_OPEN)}
    return {kind: rows.get(kind, 0) for kind in AlarmKind}
