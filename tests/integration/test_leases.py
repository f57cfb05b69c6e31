"""Leases when the database is away: no handler beside the next worker's, nobody robbed afterwards,
and no claim lost with the answer to it."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import asyncpg
import one_email
import pytest
from proxy import Proxy
from support import make_settings

from app.handlers.loading import as_handler
from app.jobs import leases
from app.jobs.claimer import Claimer
from app.jobs.leases import Contact, Held, HeldClaims, extend_once, fence
from app.jobs.patience import DATABASE_AWAY
from app.jobs.rescuer import Rescuer
from app.jobs.transitions import claiming, ending
from app.jobs.transitions.claiming import Refusal
from app.jobs.transitions.common import Claim
from app.lease_clock import lease_time
from app.models.incoming_email import IncomingEmail

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(seconds=60)
SECONDS = LEASE.total_seconds()


async def store(pool: Pool) -> UUID:
    email_id: UUID = await pool.fetchval(
        "INSERT INTO incoming_emails (from_email) VALUES ('erika@example.com') RETURNING id"
    )
    return email_id


async def read(pool: Pool, email_id: UUID) -> dict[str, Any]:
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    return dict(row)


def errors_of(row: dict[str, Any]) -> list[str]:
    return [entry["error"] for entry in json.loads(row["attempt_errors"])]


class LossyPool:
    """A pool that loses the answer to a statement when it was carried out."""

    def __init__(self, pool: Pool, statement: str) -> None:
        self._pool = pool
        self._statement = statement
        self.lost = 0

    async def fetchrow(self, statement: str, *arguments: Any) -> Any:
        return self._lose(statement, await self._pool.fetchrow(statement, *arguments))

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        return self._lose(statement, await self._pool.fetch(statement, *arguments))

    async def execute(self, statement: str, *arguments: Any) -> Any:
        return self._lose(statement, await self._pool.execute(statement, *arguments))

    def _lose(self, statement: str, answer: Any) -> Any:
        if statement == self._statement and not self.lost:
            self.lost += 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")
        return answer


STATEMENTS = {
    "CLAIM": claiming.CLAIM,
    "POSTPONE_SUSPECT": claiming.POSTPONE_SUSPECT,
    "COMPLETE": ending.COMPLETE,
    "RETRY_LATER": ending.RETRY_LATER,
    "FAIL": ending.FAIL,
}


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_a_statement_whose_answer_was_lost_costs_nothing(pool: Pool, statement: str) -> None:
    lossy: Any = LossyPool(pool, STATEMENTS[statement])
    runs: list[IncomingEmail] = []

    async def handle(email: IncomingEmail) -> None:
        runs.append(email)
        if statement in ("RETRY_LATER", "FAIL"):
            raise ConnectionError("away")

    retries = 0 if statement == "FAIL" else 5
    claimer = Claimer(
        make_settings(max_retries=retries),
        as_handler(handle, threads=4),
        lossy,
        HeldClaims(),
        one_email.late_columns(),
    )
    email_id = await store(pool)
    if statement == "POSTPONE_SUSPECT":
        await pool.execute("UPDATE incoming_emails SET lost_claims = 1, claims = 1")
        await claimer._suspect.acquire()
        await pool.execute("UPDATE incoming_emails SET processing_status = 'queued'")
    await one_email.process(claimer, email_id)
    assert lossy.lost == 1
    row = await read(pool, email_id)
    if statement == "POSTPONE_SUSPECT":
        assert (row["processing_status"], row["claims"], len(runs)) == ("queued", 1, 0)
        return
    state = {"RETRY_LATER": "queued", "FAIL": "failed"}.get(statement, "completed")
    assert row["processing_status"] == state
    assert (row["claims"], row["lost_claims"], len(runs)) == (1, 0, 1)
    assert runs[0].started_at == row["started_at"]
    assert errors_of(row) == ([] if state == "completed" else ["ConnectionError: away"])


async def test_a_message_without_work_costs_one_statement(pool: Pool) -> None:
    class CountingPool:
        statements = 0

        def fetch(self, *arguments: Any) -> Any:
            self.statements += 1
            return pool.fetch(*arguments)

    counting: Any = CountingPool()

    async def handle(email: IncomingEmail) -> None: ...

    email_id = await store(pool)
    await pool.execute("UPDATE incoming_emails SET processing_status = 'completed'")
    await one_email.process(
        Claimer(
            make_settings(),
            as_handler(handle, threads=4),
            counting,
            HeldClaims(),
            one_email.late_columns(),
        ),
        email_id,
    )
    assert counting.statements == 1


# Letting go in time.


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    """Stands before the test's database."""
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    folder, port = query["host"][0], query.get("port", ["5432"])[0]
    between = Proxy(f"{folder}/.s.PGSQL.{port}")
    yield between
    await asyncio.to_thread(between.close)


async def make_pool(database_url: str, proxy: Proxy) -> Pool:
    parts = urlsplit(database_url)
    user = parts.username or parse_qs(parts.query).get("user", ["postgres"])[0]
    return await asyncpg.create_pool(
        host="127.0.0.1",
        port=proxy.port,
        user=user,
        password=parts.password,
        database=parts.path.removeprefix("/"),
        min_size=0,
        max_size=4,
        command_timeout=2,
        ssl=False,
    )


class Worker:
    """A claimer and the duties of its keeper, over connections that can be cut."""

    def __init__(self, pool: Pool, handler: Any, lease: timedelta, **values: Any) -> None:
        self.held = HeldClaims()
        self.lease = lease
        self.pool = pool
        settings = make_settings(lease_seconds=lease.total_seconds(), **values)
        self.claimer = Claimer(
            settings, as_handler(handler, threads=4), pool, self.held, one_email.late_columns()
        )
        self._rescuer = Rescuer(
            self.held, lease=lease, lost_after=timedelta(days=1), concurrency=20
        )
        self._keeping: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Worker":
        self._keeping = [
            asyncio.create_task(self._again(lambda: fence(self.held, self.lease), 80)),
            asyncio.create_task(self._again(self._extend, 8)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def rescue(self) -> int:
        return await self._rescuer.run_once(self.pool)

    async def _extend(self) -> None:
        with contextlib.suppress(DATABASE_AWAY):
            await extend_once(self.pool, self.held, self.lease)

    async def _again(self, work: Callable[[], Any], times_per_lease: int) -> None:
        while True:
            done = work()
            if asyncio.iscoroutine(done):
                await done
            await asyncio.sleep(self.lease.total_seconds() / times_per_lease)


@pytest.mark.parametrize("how", ["cut", "silent"])
@pytest.mark.long
async def test_a_worker_that_loses_only_the_database_lets_go_before_the_next_one_takes_over(
    pool: Pool, database_url: str, proxy: Proxy, how: str
) -> None:
    lease = timedelta(seconds=6)
    is_running, is_over = asyncio.Event(), asyncio.Event()
    ends: list[str] = []

    async def handle(email: IncomingEmail) -> None:
        is_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(await pool.fetchval("SELECT processing_status FROM incoming_emails"))
            ends.append(
                await pool.fetchval(
                    "SELECT lease_expires_at > clock_timestamp() FROM incoming_emails"
                )
            )
            is_over.set()

    email_id = await store(pool)
    cut_pool = await make_pool(database_url, proxy)
    async with Worker(cut_pool, handle, lease) as cut_off:
        async with asyncio.timeout(120):
            processing = asyncio.create_task(one_email.process(cut_off.claimer, email_id))
            await is_running.wait()
            if how == "cut":
                await asyncio.to_thread(proxy.cut)
            else:
                proxy.vanish()
            await is_over.wait()
            # Nobody else could have had it yet.
            assert ends == ["processing", True]
            claimed: object = None
            while not isinstance(claimed, tuple):
                claimed = await one_email.claim(pool, email_id, lease=LEASE, worker="next")
                await asyncio.sleep(0.05)
            await asyncio.to_thread(proxy.restore)
            await processing
    row = await read(pool, email_id)
    assert (row["processing_status"], row["claimed_by"]) == ("processing", "next")
    cut_pool.terminate()


@pytest.mark.long
async def test_after_an_outage_nobody_robs_those_that_live(
    pool: Pool, database_url: str, proxy: Proxy
) -> None:
    """The database is away for all, longer than a lease, again and again."""
    lease = timedelta(seconds=4)
    running: list[UUID] = []
    may_end = asyncio.Event()

    async def handle(email: IncomingEmail) -> None:
        running.append(email.id)
        await may_end.wait()

    ids = [await store(pool) for _ in range(4)]
    first_pool, other_pool = [await make_pool(database_url, proxy) for _ in range(2)]
    async with (
        asyncio.timeout(200),
        Worker(first_pool, handle, lease) as first,
        Worker(other_pool, handle, lease) as other,
    ):
        for outage in range(3):
            running.clear()
            processing = [
                asyncio.create_task(one_email.process(first.claimer, email_id)) for email_id in ids
            ]
            while len(running) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await asyncio.to_thread(proxy.cut)
            while await pool.fetchval(  # noqa: ASYNC110
                "SELECT count(*) FROM incoming_emails WHERE lease_expires_at > clock_timestamp()"
            ):
                await asyncio.sleep(0.1)
            await asyncio.to_thread(proxy.restore)
            # The other one is back first, and looks for what vanished.
            while not all(task.done() for task in processing):
                with contextlib.suppress(DATABASE_AWAY):
                    assert await other.rescue() == 0
                await asyncio.sleep(0.1)
            for email_id in ids:
                row = await read(pool, email_id)
                assert (row["processing_status"], row["lost_claims"]) == ("queued", 0)
                assert errors_of(row) == [leases.LEASE_NOT_EXTENDED] * (outage + 1)
        # What vanishes is found all the same, when the contact has lasted.
        vanished = await one_email.claim(
            pool, ids[0], lease=timedelta(seconds=-1), worker="vanished"
        )
        assert isinstance(vanished, tuple)
        while not await other.rescue():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    row = await read(pool, ids[0])
    assert (row["processing_status"], row["lost_claims"]) == ("queued", 1)
    first_pool.terminate()
    other_pool.terminate()


async def test_a_worker_without_contact_for_a_lease_takes_over_from_nobody(pool: Pool) -> None:
    runs: list[UUID] = []

    async def handle(email: IncomingEmail) -> None:
        runs.append(email.id)

    email_id = await store(pool)
    lost = timedelta(seconds=-1)
    await one_email.claim(pool, email_id, lease=lost, worker="another")
    before = await read(pool, email_id)
    held = HeldClaims()
    claimer = Claimer(
        make_settings(), as_handler(handle, threads=4), pool, held, one_email.late_columns()
    )
    await one_email.process(claimer, email_id)
    assert await read(pool, email_id) == before
    held.contact = Contact(since=-1e9, last=1e18)
    await one_email.process(claimer, email_id)
    assert runs == [email_id]


def test_a_contact_lasts_from_the_first_answer_after_a_silence() -> None:
    now = lease_time()
    contact = Contact()
    assert not contact.has_lasted(LEASE)
    for ago in (2.0, 1.6, 1.2, 0.8, 0.4, 0.0):
        contact.answered(now - ago * SECONDS, LEASE)
    assert contact.has_lasted(LEASE)
    # One answer that did not come, and one that came after a pause of the whole process.
    contact.broke()
    contact.answered(now, LEASE)
    assert not contact.has_lasted(LEASE)
    contact = Contact()
    contact.answered(now - 2 * SECONDS, LEASE)
    contact.answered(now, LEASE)
    assert not contact.has_lasted(LEASE)
    # What was answered long ago says nothing of now.
    contact = Contact()
    for ago in (3.0, 2.6, 2.2, 1.8):
        contact.answered(now - ago * SECONDS, LEASE)
    assert not contact.has_lasted(LEASE)


async def test_a_handler_that_takes_no_cancellation_ends_with_its_process() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    held = HeldClaims()
    now = lease_time()
    claim = Claim(UUID(int=1), datetime.now(UTC), retry_count=0, lost_claims=0)
    made = []
    for ends_in in (0.5, 0.1):
        task = asyncio.create_task(wait())
        one = Held(claim, task, gives_up_at=math.inf, lease_ends_at=now + ends_in * SECONDS)
        made.append(one)
        held.add(one)
    assert fence(held, LEASE) is None
    assert [one.given_up_at is not None for one in made] == [False, True]
    assert made[1].reason == leases.LEASE_NOT_EXTENDED
    assert fence(held, LEASE) is None
    # Its time for a clean-up is over, and the loop has not come to cancel it.
    assert made[1].given_up_at is not None
    made[1].given_up_at -= 0.2 * SECONDS
    assert fence(held, LEASE) is made[1]
    await asyncio.wait({made[1].task})
    assert fence(held, LEASE) is None
    made[0].task.cancel()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="the clocks of this system stop")
async def test_a_lease_runs_out_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldClaims()
    claim = Claim(UUID(int=1), datetime.now(UTC), retry_count=0, lost_claims=0)
    task = asyncio.create_task(asyncio.Event().wait())
    one = Held(claim, task, gives_up_at=math.inf, lease_ends_at=lease_time() + 3600)
    held.add(one)
    assert fence(held, timedelta(hours=1)) is None
    assert one.given_up_at is None
    awake = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: awake(clock) + 3600)
    assert fence(held, timedelta(hours=1)) is None
    assert one.given_up_at is not None
    await asyncio.wait({task})


async def test_an_answer_that_comes_when_the_lease_is_nearly_over_starts_no_handler(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[UUID] = []

    async def handle(email: IncomingEmail) -> None:
        runs.append(email.id)

    real_claim = claiming.claim

    async def claim_late(*arguments: Any, **named: Any) -> Any:
        made = await real_claim(*arguments, **named)
        moment = lease_time()
        monkeypatch.setattr(leases, "lease_time", lambda: moment + 0.9 * SECONDS)
        return made

    monkeypatch.setattr(claiming, "claim", claim_late)
    email_id = await store(pool)
    await one_email.process(
        Claimer(
            make_settings(),
            as_handler(handle, threads=4),
            pool,
            HeldClaims(),
            one_email.late_columns(),
        ),
        email_id,
    )
    monkeypatch.undo()
    row = await read(pool, email_id)
    assert runs == []
    assert row["processing_status"] == "queued"
    assert errors_of(row) == [leases.LEASE_NOT_EXTENDED]
    assert (row["claims"], row["lost_claims"]) == (0, 0)


async def test_refusals_are_told_apart(pool: Pool) -> None:
    email_id = await store(pool)
    await pool.execute("UPDATE incoming_emails SET lost_claims = 1, claims = 1")
    refused = await one_email.claim(pool, email_id, lease=LEASE, worker="a", suspects=False)
    assert refused is Refusal.SUSPECT
    await pool.execute("UPDATE incoming_emails SET processing_status = 'completed'")
    refused = await one_email.claim(pool, email_id, lease=LEASE, worker="a", suspects=False)
    assert refused is Refusal.NO_WORK
