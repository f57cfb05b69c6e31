"""Results in bulk: shared commits, and none that is held up or spoilt by another."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import one_email
import pytest
from support import WAIT_SECONDS

from app.jobs import results as results_module
from app.jobs.results import Results, record_all
from app.jobs.transitions import ending, keeping
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import Completion, End, Failure, HandBack, LaterRetry, Result

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(seconds=60)


async def claims(pool: Pool, number: int) -> list[Claim]:
    """Store emails and claim them, in the order of their ids."""
    await pool.execute(
        "INSERT INTO incoming_emails (from_email)"
        " SELECT 'erika@example.com' FROM generate_series(1, $1)",
        number,
    )
    rows = await pool.fetch("SELECT id FROM incoming_emails WHERE claims = 0 ORDER BY id")
    made = [await one_email.claim(pool, row["id"], lease=LEASE, worker="w") for row in rows]
    return [one[0] for one in made if isinstance(one, tuple)]


async def states(pool: Pool, claims: list[Claim]) -> list[str]:
    rows = await pool.fetch("SELECT id, processing_status FROM incoming_emails")
    found = {row["id"]: row["processing_status"] for row in rows}
    return [found[claim.email_id] for claim in claims]


async def read(pool: Pool, email_id: UUID) -> dict[str, Any]:
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    return dict(row)


def completion(claim: Claim, body: str = "text") -> Completion:
    return Completion(claim, '{"a": 1}', body)


class Statements:
    """A pool that counts what is asked of it, and loses the answers to some."""

    def __init__(self, pool: Pool, *, lost: int = 0, errors: int = 0) -> None:
        self._pool = pool
        self._lost = lost
        self._errors = errors
        self.rows: list[int] = []

    async def fetch(self, statement: str, ids: list[UUID], *arguments: Any) -> Any:
        self.rows.append(len(ids))
        if self._errors:
            self._errors -= 1
            raise asyncpg.CannotConnectNowError("starting up")
        answer = await self._pool.fetch(statement, ids, *arguments)
        if self._lost:
            self._lost -= 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")
        return answer


async def record(results: Results, result: Result) -> bool:
    """Have a result recorded, again while its email is locked. Returns whether its claim stood."""
    while (end := await results.store(result)) is End.BUSY:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return end is End.RECORDED


async def recorded(pool: Any, wanted: list[Result]) -> list[bool]:
    """Record results that come at the same time. Returns which of the claims still stood."""
    results = Results(pool, longest_pause=0.05)
    async with asyncio.timeout(WAIT_SECONDS):
        stood = await asyncio.gather(*(record(results, result) for result in wanted))
        await results.close()
    return stood


async def test_what_arrives_while_one_statement_is_on_its_way_shares_the_next(pool: Pool) -> None:
    held = await claims(pool, 40)
    counting: Any = Statements(pool)
    results = Results(counting, longest_pause=0.05)
    first = asyncio.create_task(record(results, completion(held[0])))
    while not counting.rows:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert all(await asyncio.gather(*(record(results, completion(one)) for one in held[1:])))
    assert await first
    assert counting.rows == [1, 39]
    assert await states(pool, held) == ["completed"] * 40
    await results.close()


async def test_each_result_of_a_batch_has_its_own_end(pool: Pool) -> None:
    done, retried, failed, back, stolen, erased = held = await claims(pool, 6)
    await pool.execute(
        "UPDATE incoming_emails SET lease_expires_at = now() - interval '1 s' WHERE id = $1",
        stolen.email_id,
    )
    assert isinstance(await one_email.claim(pool, stolen.email_id, lease=LEASE, worker="x"), tuple)
    before = await read(pool, stolen.email_id)
    await pool.execute("DELETE FROM incoming_emails WHERE id = $1", erased.email_id)
    hour = timedelta(hours=1)
    stood = await recorded(
        pool,
        [
            completion(done),
            LaterRetry(retried, "busy", hour),
            Failure(failed, "broken"),
            HandBack(back, "stopped"),
            completion(stolen),
            completion(erased),
        ],
    )
    assert stood == [True, True, True, True, False, False]
    assert await states(pool, held[:5]) == [
        *("completed", "queued", "failed", "queued", "processing")
    ]
    assert await read(pool, stolen.email_id) == before
    row = await read(pool, done.email_id)
    assert (json.loads(row["extracted_data"]), row["cleaned_body"]) == ({"a": 1}, "text")
    row = await read(pool, retried.email_id)
    (entry,) = json.loads(row["attempt_errors"])
    assert (entry["attempt"], entry["error"], row["retry_count"]) == (1, "busy", 1)
    assert datetime.fromisoformat(entry["next_attempt_at"]) == row["next_attempt_at"]
    assert row["next_attempt_at"] - row["updated_at"] == hour
    row = await read(pool, failed.email_id)
    assert (row["processing_error"], row["retry_count"]) == ("broken", 0)
    row = await read(pool, back.email_id)
    assert (row["claims"], json.loads(row["attempt_errors"])[0]["error"]) == (0, "stopped")
    for one in (done, retried, failed, back):
        row = await read(pool, one.email_id)
        assert row["lease_expires_at"] is row["queued_at"] is None


async def test_a_locked_email_holds_up_no_other_result_and_is_recorded_when_it_is_free(
    pool: Pool,
) -> None:
    held = await claims(pool, 3)
    results = Results(pool, longest_pause=0.05)
    async with asyncio.timeout(WAIT_SECONDS):
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute(
                "SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", held[1].email_id
            )
            waiting = [asyncio.create_task(record(results, completion(one))) for one in held]
            assert await waiting[0]
            assert await waiting[2]
            assert not waiting[1].done()
            ends = await ending.fail(pool, [Failure(held[1], "x")])
            assert ends == [End.BUSY]
            assert await states(pool, held) == ["completed", "processing", "completed"]
        assert await waiting[1]
    assert await states(pool, held) == ["completed"] * 3
    await results.close()


@pytest.mark.parametrize("refused", ["a\x00b", "a\ud800b"])
async def test_a_value_that_postgresql_refuses_fails_its_own_email_alone(
    pool: Pool, refused: str
) -> None:
    held = await claims(pool, 5)
    # The first is on its way alone, the others come in one batch.
    wanted: list[Result] = [completion(one) for one in held]
    wanted[2] = completion(held[2], refused)
    wanted[3] = LaterRetry(held[3], refused, timedelta(0))
    assert all(await recorded(pool, wanted))
    assert await states(pool, held) == [
        *("completed", "completed", "failed", "queued", "completed")
    ]
    error = (await read(pool, held[2].email_id))["processing_error"]
    assert error.startswith("the database refuses what the handler found (")


async def test_results_wait_for_a_database_that_is_away(pool: Pool) -> None:
    held = await claims(pool, 4)
    away: Any = Statements(pool, errors=5)
    assert all(await recorded(away, [completion(one) for one in held]))
    assert len(away.rows) > 5
    assert await states(pool, held) == ["completed"] * 4


async def test_a_result_whose_answer_was_lost_is_recorded_once(pool: Pool) -> None:
    held = await claims(pool, 2)
    lossy: Any = Statements(pool, lost=1)
    await recorded(lossy, [LaterRetry(one, "busy", timedelta(0)) for one in held])
    rows = [await read(pool, one.email_id) for one in held]
    assert [row["retry_count"] for row in rows] == [1, 1]
    assert [len(json.loads(row["attempt_errors"])) for row in rows] == [1, 1]


async def test_large_results_go_in_several_statements(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "BATCH_BYTES", 1_000)
    held = await claims(pool, 7)
    counting: Any = Statements(pool)
    sizes = [100, 900, 300, 300, 300, 5_000, 10]
    await recorded(counting, [completion(c, "x" * n) for c, n in zip(held, sizes, strict=True)])
    # The first one did not wait for the others.
    assert counting.rows[-4:] == [1, 3, 1, 1]
    assert await states(pool, held) == ["completed"] * 7


async def test_batches_in_opposite_orders_do_not_wait_for_each_other(pool: Pool) -> None:
    held = await claims(pool, 60)
    async with asyncio.timeout(WAIT_SECONDS):
        ends = await asyncio.gather(
            *(ending.complete(pool, [completion(c) for c in held]) for _ in range(2)),
            *(ending.fail(pool, [Failure(c, "x") for c in reversed(held)]) for _ in range(2)),
            keeping.extend_leases(pool, list(reversed(held)), lease=LEASE),
        )
        # Each was ended by one of them, or was busy for all and still is in work.
        left = [
            c for c, state in zip(held, await states(pool, held), strict=True) if state[0] == "p"
        ]
        assert sum(end.count(End.RECORDED) for end in ends[:4]) == 60 - len(left)
        await record_all(pool, [completion(c) for c in left])
    assert set(await states(pool, held)) <= {"completed", "failed"}
