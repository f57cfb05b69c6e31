"""How PostgreSQL finds the rows of every hot statement, whatever its statistics are of: an empty
table, a full one, one of a million emails, and one that was full and is drained by now.

A million is told to the planner instead of stored: it reckons with the rows that the catalogue
says there are on a page.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from app.jobs import progress
from app.jobs.transitions import claiming, dispatching, ending, keeping

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(seconds=60)
IDS = [UUID(int=n) for n in range(1, 101)]
TOKENS = [datetime.now(UTC)] * len(IDS)
NOW = datetime.now(UTC)


def each(value: Any) -> list[Any]:
    return [value] * len(IDS)


BY_IDS: dict[str, tuple[str, list[Any]]] = {
    "CLAIM": (claiming.CLAIM, [IDS, IDS, LEASE, "w", False, True, 10_000_000, True]),
    "GIVE_BACK": (claiming.GIVE_BACK, [IDS]),
    "COMPLETE": (ending.COMPLETE, [IDS, TOKENS, each("{}"), each("text")]),
    "RETRY_LATER": (ending.RETRY_LATER, [IDS, TOKENS, each("x"), each(LEASE)]),
    "FAIL": (ending.FAIL, [IDS, TOKENS, each("x")]),
    "HAND_BACK": (ending.HAND_BACK, [IDS, TOKENS, each("x")]),
    "EXTEND_LEASES": (keeping.EXTEND_LEASES, [IDS, TOKENS, LEASE]),
    "TELL": (progress.TELL, [IDS, TOKENS, each("x")]),
}
STATES = {
    "QUEUE": (dispatching.QUEUE, [200, 1_000, 1, None, None, LEASE, 100]),
    "QUEUE since": (dispatching.QUEUE, [200, 1_000, 1, NOW, NOW, LEASE, 100]),
    "RESCUE_EXPIRED": (keeping.RESCUE_EXPIRED, [500, None]),
    "RESCUE_EXPIRED since": (keeping.RESCUE_EXPIRED, [500, NOW]),
    "RESCUE_UNHEARD": (keeping.RESCUE_UNHEARD, [500, None, LEASE, None, True]),
    "RESCUE_UNHEARD since": (keeping.RESCUE_UNHEARD, [500, NOW, LEASE, NOW, False]),
    "BEGINNINGS": (keeping.BEGINNINGS, [None, None]),
    "BEGINNINGS since": (keeping.BEGINNINGS, [NOW, NOW]),
}
OF_STATES = ("status_received", "sent", "due")

FILL = """
INSERT INTO incoming_emails (from_email, processing_status, received_at, queued_at, started_at)
SELECT 'erika@example.com', state, now() - n * interval '1 minute',
    CASE WHEN n % 2 = 0 THEN now() END, now()
FROM unnest(ARRAY['received', 'queued', 'processing', 'completed']) AS state,
    generate_series(1, $1) AS n
"""
SAY_A_MILLION = """
UPDATE pg_class SET reltuples = 1000000
WHERE oid = 'incoming_emails'::regclass
    OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'incoming_emails'::regclass)
"""


async def with_all_statistics(
    connection: "asyncpg.Connection[asyncpg.Record]", check: Callable[[str], Awaitable[None]]
) -> None:
    """Have something checked with those of each table."""
    await connection.execute("ANALYZE incoming_emails")
    await connection.execute(FILL, 4_000)
    await check("empty")
    await connection.execute("ANALYZE incoming_emails")
    await check("full")
    await connection.execute(SAY_A_MILLION)
    await check("a million")
    await connection.execute("UPDATE incoming_emails SET processing_status = 'completed'")
    await check("drained, with the statistics of a million")
    await connection.execute("ANALYZE incoming_emails")
    await check("drained")
    await connection.execute(SAY_A_MILLION)
    await check("a million, drained")


@pytest.mark.parametrize("kind", ["force_custom_plan", "force_generic_plan"])
async def test_every_hot_statement_finds_its_rows_by_the_index_that_was_made_for_it(
    pool: Pool, kind: str
) -> None:
    async with pool.acquire() as connection:
        await connection.execute(f"SET plan_cache_mode = {kind}")

        async def check(statistics: str) -> None:
            for name, (statement, arguments) in (BY_IDS | STATES).items():
                rows = await connection.fetch(f"EXPLAIN {statement}", *arguments)
                plan = "\n".join(row[0] for row in rows)
                told = f"{name}, statistics: {statistics}\n{plan}"
                assert "Seq Scan on incoming_emails" not in plan, told
                assert "incoming_emails_pkey" in plan or "UPDATE" not in statement, told
                allowed = () if name in BY_IDS else OF_STATES
                others = [
                    line.partition("ix_incoming_emails_")[2]
                    for line in plan.splitlines()
                    if "ix_incoming_emails_" in line
                ]
                assert all(other.startswith(allowed) for other in others if allowed), told
                assert allowed or not others, told

        await with_all_statistics(connection, check)
