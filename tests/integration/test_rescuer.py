"""The Rescuer beside a transaction that keeps dead entries in the indexes."""

import json
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

from app.jobs.leases import Contact, HeldClaims
from app.jobs.rescuer import Rescuer
from app.jobs.transitions import keeping
from app.jobs.transitions.keeping import ALL, Stretch

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

WENT_THROUGH = 3_000
LOST_AFTER = timedelta(minutes=5)


def make_rescuer() -> Rescuer:
    held_claims = HeldClaims()
    held_claims.contact = Contact(since=-1e9, last=1e18)
    return Rescuer(held_claims, lease=timedelta(seconds=60), lost_after=LOST_AFTER, concurrency=20)


async def store(pool: Pool, state: str, age: str, *, is_stuck: bool = False) -> UUID:
    """Store an email that is in work or has a message. Returns its id."""
    email_id: UUID = await pool.fetchval(
        """
        INSERT INTO incoming_emails (from_email, processing_status, received_at, queued_at,
            started_at, lease_expires_at)
        SELECT 'erika@example.com', $1, at, at, at, now() + CASE WHEN $3 THEN -1 ELSE 1 END
            * interval '1 minute'
        FROM (SELECT now() - $2::text::interval AS at) AS moment
        RETURNING id
        """,
        state,
        age,
        is_stuck,
    )
    return email_id


async def test_a_look_spares_the_dead_entries_of_what_went_through(
    pool: Pool, database_url: str
) -> None:
    holder = await asyncpg.connect(database_url)
    await pool.execute(
        "INSERT INTO incoming_emails (from_email, received_at)"
        " SELECT 'erika@example.com', now() - interval '2 hours' FROM generate_series(1, $1)",
        WENT_THROUGH,
    )
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await holder.fetch("SELECT FROM incoming_emails LIMIT 1")
    for state, sets in (
        ("queued", "queued_at = now() - interval '1 hour'"),
        ("processing", "started_at = now(), lease_expires_at = now() + interval '1 minute'"),
        ("completed", "completed_at = now()"),
    ):
        await pool.execute(f"UPDATE incoming_emails SET processing_status = '{state}', {sets}")
    await store(pool, "processing", "1 minute")
    await store(pool, "queued", "1 minute")
    await pool.execute("ANALYZE incoming_emails")
    rescuer = make_rescuer()
    assert await rescuer.run_once(pool) == 0

    async def buffers(since: Stretch) -> list[int]:
        """What each statement of a look reads."""
        read = []
        for statement, arguments in (
            (keeping.RESCUE_EXPIRED, [500, since.received_at]),
            (
                keeping.RESCUE_UNHEARD,
                [500, since.received_at, LOST_AFTER, since.queued_at, False],
            ),
            (keeping.BEGINNINGS, [since.queued_at, since.received_at]),
        ):
            rows = await pool.fetch(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments
            )
            plan = json.loads(rows[0][0])[0]["Plan"]
            read.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        return read

    from_the_beginning, since = await buffers(ALL), await buffers(rescuer._since)
    assert min(from_the_beginning) > WENT_THROUGH / 100
    assert max(since) < min(from_the_beginning) / 3
    await holder.close()


@pytest.mark.parametrize("state", ["processing", "queued"])
async def test_what_is_stuck_is_found_whatever_its_age(pool: Pool, state: str) -> None:
    rescuer = make_rescuer()
    await store(pool, "processing", "1 minute")
    await store(pool, "queued", "1 minute")
    assert await rescuer.run_once(pool) == 0
    rescuer._whole_looks.next_at = 1e18
    young = await store(pool, state, "30 seconds", is_stuck=state == "processing")
    assert await rescuer.run_once(pool) == (state == "processing")
    old = await store(pool, state, "1 day", is_stuck=True)
    assert await rescuer.run_once(pool) == 0
    rescuer._whole_looks.demand()
    # The message of the old one may be lost; whoever came after it may wait in the broker.
    assert await rescuer.run_once(pool) == 1
    rows = await pool.fetch("SELECT id, queued_at FROM incoming_emails WHERE queued_at IS NULL")
    assert {row["id"] for row in rows} == ({young, old} if state == "processing" else {old})
