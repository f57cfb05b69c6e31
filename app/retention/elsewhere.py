"""What is known of people besides their emails and the quarantine: mail that Zendesk suspended,
answers of Zendesk's that nobody has seen the like of, searches and reasons of bulk actions, and
saved searches.

The row of a suspended mail stays, empty, for as long as Zendesk lists it: so it is not kept again.
"""

from uuid import UUID

import asyncpg

from app.models.bulk_action import ERASED_FILTER
from app.models.erasure import ErasedBy
from app.retention.criteria import Criterion, Pool
from app.retention.mentions import pattern_of

_IS_MEANT = {
    ErasedBy.SENDER: "row.erased_at IS NULL AND row.sender ~* $1",
    ErasedBy.TICKET: "row.erased_at IS NULL AND row.ticket_id::text = $2",
}
_IS_ODD = "row.item ~* $1"
_GIVEN = "$1::text IS NOT NULL AND $2::text IS NOT NULL"


def _count(kind: ErasedBy) -> str:
    return f"""
SELECT (SELECT count(*) FROM suspended_tickets AS row WHERE {_IS_MEANT[kind]} AND {_GIVEN})
    + (SELECT count(*) FROM zendesk_oddities AS row WHERE {_IS_ODD})
"""  # noqa: S608 - a constant


def _hold(kind: ErasedBy) -> str:
    return f"""
SELECT archived_as FROM suspended_tickets AS row WHERE {_IS_MEANT[kind]} AND {_GIVEN}
ORDER BY id FOR UPDATE
"""  # noqa: S608 - a constant


def _erase(kind: ErasedBy) -> str:
    return f"""
WITH emptied AS (
    UPDATE suspended_tickets AS row
    SET sender = '', sender_name = NULL, subject = '', erased_at = now()
    WHERE {_IS_MEANT[kind]} AND {_GIVEN}
    RETURNING archived_as
),
copies AS (
    DELETE FROM quarantined_webhooks AS copy USING emptied
    WHERE copy.id = emptied.archived_as
),
odd AS (
    DELETE FROM zendesk_oddities AS row WHERE {_IS_ODD} RETURNING 1
),
bulk AS (
    UPDATE bulk_actions AS row
    SET filter = CASE WHEN row.filter ~* $1 THEN '{ERASED_FILTER}' ELSE row.filter END,
        reason = CASE WHEN row.reason ~* $1 THEN '{ERASED_FILTER}' ELSE row.reason END
    WHERE row.filter ~* $1 OR row.reason ~* $1
),
saved AS (
    DELETE FROM saved_searches AS row WHERE row.search ~* $1 OR row.name ~* $1
)
SELECT (SELECT count(*) FROM emptied) + (SELECT count(*) FROM odd)
"""  # noqa: S608 - a constant


COUNT = {kind: _count(kind) for kind in _IS_MEANT}
HOLD = {kind: _hold(kind) for kind in _IS_MEANT}
ERASE = {kind: _erase(kind) for kind in _IS_MEANT}


async def count(pool: Pool, criterion: Criterion) -> int:
    """How many there are."""
    if criterion.kind not in COUNT:
        return 0
    found: int = await pool.fetchval(COUNT[criterion.kind], *_arguments(criterion))
    return found


async def hold_copies(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", criterion: Criterion
) -> set[UUID]:
    """Copies in the quarantine that `erase` would remove now, until the transaction ends: nobody
    makes another one meanwhile."""
    if criterion.kind not in HOLD:
        return set()
    rows = await connection.fetch(HOLD[criterion.kind], *_arguments(criterion))
    return {row["archived_as"] for row in rows} - {None}


async def erase(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", criterion: Criterion
) -> int:
    """Leave nothing of them, in a transaction that holds their copies, which have tombstones.

    Returns:
        How many there were.
    """
    if criterion.kind not in ERASE:
        return 0
    gone: int = await connection.fetchval(ERASE[criterion.kind], *_arguments(criterion))
    return gone


def _arguments(criterion: Criterion) -> tuple[str, str]:
    return pattern_of(criterion.kind, criterion.value), criterion.value
