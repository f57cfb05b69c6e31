"""The Dispatcher between its commit and the broker: fair, never in the way of who has work, and
without loss where the broker or the database goes away, or it dies itself."""

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import one_email
import psycopg
import pytest

import app.jobs.dispatcher as dispatcher_module
from app.jobs import whole_looks
from app.jobs.dispatcher import BATCH, CHANNEL, Dispatcher
from app.jobs.heartbeat import beat
from app.jobs.transitions import dispatching
from app.jobs.transitions.dispatching import THE_BEGINNING, Since

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(seconds=60)
BACKLOG = 10_000


async def store(pool: Pool, emails: int = 1) -> list[UUID]:
    """Store emails as the Intake does. Returns their ids in the order of receipt."""
    rows = await pool.fetch(
        "INSERT INTO incoming_emails (from_email, received_at)"
        " SELECT 'erika@example.com', now() + n * interval '1 millisecond'"
        " FROM generate_series(1, $1) AS n RETURNING id, received_at",
        emails,
    )
    return [row["id"] for row in sorted(rows, key=lambda row: row["received_at"])]


async def states(pool: Pool) -> dict[str, int]:
    rows = await pool.fetch(
        "SELECT processing_status, count(*) FROM incoming_emails GROUP BY processing_status"
    )
    return {row[0]: row[1] for row in rows}


async def make_due(pool: Pool, retries: int) -> None:
    """Store emails whose retry is due, all received long before any fresh one."""
    await pool.execute(
        "INSERT INTO incoming_emails (from_email, processing_status, received_at, next_attempt_at,"
        " retry_count, claims)"
        " SELECT 'erika@example.com', 'queued', now() - interval '1 day',"
        " now() - n * interval '1 millisecond', 1, 1 FROM generate_series(1, $1) AS n",
        retries,
    )


async def test_fresh_email_goes_on_beside_very_many_retries(pool: Pool) -> None:
    await make_due(pool, BACKLOG)
    await pool.execute("ANALYZE incoming_emails")
    fresh = await store(pool, 2 * BATCH)
    sent: list[UUID] = []
    dispatcher = Dispatcher(pool, send=sent.extend, depth=1_000_000, concurrency=1)
    for _ in range(4):
        assert await dispatcher.dispatch_batch()
    assert [email_id for email_id in sent if email_id in set(fresh)] == fresh
    assert len(sent) == 4 * BATCH


async def test_retries_go_on_beside_very_much_fresh_email(pool: Pool) -> None:
    await store(pool, 4 * BATCH)
    await make_due(pool, BATCH)
    sent: list[UUID] = []
    dispatcher = Dispatcher(pool, send=sent.extend, depth=1_000_000, concurrency=1)
    for _ in range(2):
        assert await dispatcher.dispatch_batch()
    left = await pool.fetchval(
        "SELECT count(*) FROM incoming_emails WHERE retry_count = 1 AND queued_at IS NULL"
    )
    assert left == 0


async def test_where_the_broker_has_room_for_one_at_a_time_neither_kind_starves(
    pool: Pool,
) -> None:
    await make_due(pool, 20)
    fresh = set(await store(pool, 20))
    sent: list[UUID] = []
    dispatcher = Dispatcher(pool, send=sent.extend, depth=1, concurrency=1)
    for turn in range(20):
        assert await dispatcher.dispatch_batch()
        assert not await dispatcher.dispatch_batch()
        claimed = await one_email.claim(pool, sent[turn], lease=LEASE, worker="a worker")
        assert isinstance(claimed, tuple)
    assert len(fresh & set(sent)) == 10


@pytest.mark.long
async def test_retries_that_fall_due_all_the_time_do_not_stop_fresh_email(pool: Pool) -> None:
    fresh = await store(pool, 10 * BATCH)
    sent: list[UUID] = []
    loop = asyncio.get_running_loop()
    is_all_sent = asyncio.Event()

    def send(email_id: UUID) -> None:
        sent.append(email_id)
        # One more falls due for each that is sent.
        asyncio.run_coroutine_threadsafe(make_due(pool, 1), loop).result()
        if set(fresh) <= set(sent):
            loop.call_soon_threadsafe(is_all_sent.set)

    await make_due(pool, 1)
    async with (
        asyncio.timeout(120),
        running(Dispatcher(pool, send=one_email.each(send), depth=1_000_000, concurrency=1)),
    ):
        await is_all_sent.wait()


@contextlib.asynccontextmanager
async def running(dispatcher: Dispatcher) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(dispatcher.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class SlowBroker:
    """Takes a message when it is let."""

    def __init__(self) -> None:
        self.taken: list[UUID] = []
        self._turns = threading.Semaphore(0)
        self._is_asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def send(self, email_id: UUID) -> None:
        self._loop.call_soon_threadsafe(self._is_asked.set)
        self._turns.acquire()
        self.taken.append(email_id)

    def let(self, messages: int) -> None:
        self._turns.release(messages)

    async def wait_until_asked(self) -> None:
        async with asyncio.timeout(60):
            await self._is_asked.wait()


async def test_emails_can_be_claimed_and_finished_while_the_broker_takes_a_batch(
    pool: Pool,
) -> None:
    ids = await store(pool, 3)
    broker = SlowBroker()
    dispatching = asyncio.create_task(
        Dispatcher(pool, send=one_email.each(broker.send), depth=10, concurrency=1).dispatch_batch()
    )
    await broker.wait_until_asked()
    try:
        async with asyncio.timeout(60):
            for email_id in ids:
                made = await one_email.claim(pool, email_id, lease=LEASE, worker="a worker")
                assert isinstance(made, tuple)
                assert await one_email.complete(
                    pool, made[0], extracted_data=None, cleaned_body=None
                )
        assert not dispatching.done()
    finally:
        broker.let(3)
    assert await dispatching
    assert await states(pool) == {"completed": 3}


async def test_what_a_slow_broker_did_not_take_in_its_time_is_given_back_and_sent_later(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "BROKER_SECONDS", 0.5)
    ids = await store(pool, 4)
    broker = SlowBroker()
    broker.let(2)
    try:
        assert await Dispatcher(
            pool, send=one_email.each(broker.send), depth=10, concurrency=1
        ).dispatch_batch()
        assert await states(pool) == {"queued": 2, "received": 2}
    finally:
        # The thread that hangs sends the one it was at, and no other: they are in other hands.
        broker.let(10)
    later: list[UUID] = []
    assert await Dispatcher(pool, send=later.extend, depth=10, concurrency=1).dispatch_batch()
    assert later == ids[2:]
    await asyncio.get_running_loop().shutdown_default_executor()
    assert broker.taken == ids[:3]


async def test_a_broker_that_does_not_answer_is_given_up(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "BROKER_SECONDS", 0.05)
    await store(pool)
    broker = SlowBroker()
    try:
        with pytest.raises(TimeoutError):
            await Dispatcher(
                pool, send=one_email.each(broker.send), depth=10, concurrency=1
            ).dispatch_batch()
        assert await states(pool) == {"received": 1}
    finally:
        broker.let(1)


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_what_the_broker_refuses_is_as_it_was_before(pool: Pool, taken: int) -> None:
    back, *others = await store(pool, 3)
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'queued' WHERE id = $1", back
    )
    # Fresh ones and those sent again go by turns.
    order = [others[0], back, others[1]]
    sent: list[UUID] = []

    def refuse(email_id: UUID) -> None:
        if len(sent) == taken:
            raise ConnectionError("the broker is away")
        sent.append(email_id)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await Dispatcher(
                pool, send=one_email.each(refuse), depth=10, concurrency=1
            ).dispatch_batch()
        assert sent == order[:taken]
        unsent = await pool.fetch(
            "SELECT id, processing_status FROM incoming_emails WHERE queued_at IS NULL"
        )
        assert dict(unsent) == {
            email_id: "queued" if email_id == back else "received" for email_id in order[taken:]
        }
    again: list[UUID] = []
    await Dispatcher(pool, send=again.extend, depth=10, concurrency=1).dispatch_batch()
    assert set(again) == set(order[taken:])


async def test_a_dispatcher_that_is_stopped_gives_back_what_it_has_not_sent(pool: Pool) -> None:
    await store(pool, 3)
    broker = SlowBroker()
    dispatching = asyncio.create_task(
        Dispatcher(pool, send=one_email.each(broker.send), depth=10, concurrency=1).dispatch_batch()
    )
    await broker.wait_until_asked()
    dispatching.cancel()
    await asyncio.wait({dispatching})
    broker.let(10)
    assert await states(pool) == {"received": 3}


async def test_a_message_for_what_was_given_back_is_worth_a_run_all_the_same(pool: Pool) -> None:
    """The broker took it, and its answer was lost."""
    (email_id,) = await store(pool)

    def take_and_raise(_: UUID) -> None:
        raise ConnectionError("no answer")

    with pytest.raises(ConnectionError):
        await Dispatcher(
            pool, send=one_email.each(take_and_raise), depth=10, concurrency=1
        ).dispatch_batch()
    claimed = await one_email.claim(pool, email_id, lease=LEASE, worker="a worker")
    assert isinstance(claimed, tuple)


async def test_a_dispatcher_that_dies_before_it_has_sent_loses_nothing(
    pool: Pool, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    ids = await store(pool, 3)
    sent: list[UUID] = []

    def die(email_id: UUID) -> None:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        raise Died

    class DeadPool:
        """What is left of the pool of a process that died."""

        def fetch(self, statement: str, *arguments: Any) -> Any:
            if statement == dispatching.UNQUEUE:
                raise Died
            return pool.fetch(statement, *arguments)

    dead: Any = DeadPool()
    with pytest.raises(Died):
        await Dispatcher(dead, send=one_email.each(die), depth=10, concurrency=1).dispatch_batch()
    assert await states(pool) == {"queued": 3}
    assert await one_email.rescue(pool) == 0
    await pool.execute("UPDATE incoming_emails SET queued_at = queued_at - interval '1 hour'")
    assert await one_email.rescue(pool) == 3
    assert await Dispatcher(pool, send=sent.extend, depth=10, concurrency=1).dispatch_batch()
    assert sent == ids


class Herd:
    """Dispatchers as of so many worker processes, with their heartbeats."""

    def __init__(self, pool: Pool, size: int, send: Any) -> None:
        self._pool = pool
        self.dispatchers = [
            Dispatcher(pool, send=one_email.each(send), depth=1_000, concurrency=1)
            for _ in range(size)
        ]
        self.started_at = [datetime.now(UTC) + timedelta(seconds=n) for n in range(size)]

    async def beat(self, *numbers: int) -> list[int]:
        """Have these, or all, say that they live. Returns those that are the first."""
        first = []
        for number in numbers or range(len(self.dispatchers)):
            is_first = await beat(
                self._pool, name=f"worker-{number}", threads=8, started_at=self.started_at[number]
            )
            self.dispatchers[number].be_first(is_first)
            first += [number] * is_first
        return first


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that a Dispatcher has asked what is to be sent. By themselves they look
    once only, as they begin or are made the first."""
    monkeypatch.setattr(dispatcher_module, "POLL_SECONDS", 3_600.0)
    monkeypatch.setattr(dispatcher_module, "LOOK_SECONDS", 3_600.0)
    monkeypatch.setattr(whole_looks, "SHARE", 1.0)
    counted: list[None] = []
    real_queue = dispatching.queue

    async def count(*arguments: Any, **named: Any) -> Any:
        queued = await real_queue(*arguments, **named)
        counted.append(None)
        return queued

    monkeypatch.setattr(dispatching, "queue", count)
    return counted


async def wait_for_looks(looks: list[None], number: int) -> None:
    while len(looks) < number:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_an_email_wakes_one_dispatcher_of_many(
    pool: Pool, database_url: str, looks: list[None]
) -> None:
    loop = asyncio.get_running_loop()
    looked: dict[int, int] = {}
    for size in (1, 16):
        sent: asyncio.Queue[UUID] = asyncio.Queue()
        send = functools.partial(loop.call_soon_threadsafe, sent.put_nowait)
        async with (
            asyncio.timeout(120),
            asyncpg.create_pool(database_url, min_size=0, max_size=size + 1) as wide,
            contextlib.AsyncExitStack() as stack,
        ):
            herd = Herd(wide, size, send)
            assert await herd.beat() == [0]
            looks.clear()
            for dispatcher in herd.dispatchers:
                await stack.enter_async_context(running(dispatcher))
            await wait_for_looks(looks, size)
            looks.clear()
            for _ in range(20):
                (email_id,) = await store(pool)
                await pool.execute(f"NOTIFY {CHANNEL}")
                assert await sent.get() == email_id
            looked[size] = len(looks)
        await pool.execute("DELETE FROM workers")
        # The last one was given back, if its Dispatcher was ended before it knew that it was sent.
        await pool.execute("DELETE FROM incoming_emails")
    # One look that finds the email, and one that finds no more; the storing itself rings as well.
    assert all(looked[size] <= 3 * 20 + 1 for size in (1, 16)), looked


async def test_the_first_is_who_started_first_of_those_that_live(pool: Pool) -> None:
    herd = Herd(pool, 3, send=None)
    assert await herd.beat(2) == [2]
    assert await herd.beat(0, 1, 2) == [0]
    # It was killed, was paused, or hangs: nobody asks it for its place.
    await pool.execute(
        "UPDATE workers SET seen_at = seen_at - interval '1 minute' WHERE name = 'worker-0'"
    )
    assert await herd.beat(1, 2) == [1]
    assert await herd.beat(0, 1, 2) == [0]
    await pool.execute("UPDATE workers SET seen_at = seen_at - interval '1 hour'")
    assert await herd.beat(2) == [2]
    assert await pool.fetchval("SELECT count(*) FROM workers") == 1


async def test_others_send_what_a_first_that_hangs_leaves(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "LOOK_SECONDS", 0.1)
    broker = SlowBroker()
    sent: asyncio.Queue[UUID] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    first = Dispatcher(pool, send=one_email.each(broker.send), depth=10, concurrency=1)
    first.be_first(True)
    other = Dispatcher(
        pool,
        send=one_email.each(lambda email_id: loop.call_soon_threadsafe(sent.put_nowait, email_id)),
        depth=10,
        concurrency=1,
    )
    async with asyncio.timeout(60), running(first):
        await store(pool)
        await broker.wait_until_asked()
        try:
            async with running(other):
                (later,) = await store(pool)
                assert await sent.get() == later
        finally:
            broker.let(10)


async def test_the_next_one_listens_when_it_becomes_the_first(
    pool: Pool, looks: list[None]
) -> None:
    sent: asyncio.Queue[UUID] = asyncio.Queue()
    send = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, sent.put_nowait)
    dispatcher = Dispatcher(pool, send=one_email.each(send), depth=10, concurrency=1)
    async with asyncio.timeout(60), running(dispatcher):
        await wait_for_looks(looks, 1)
        dispatcher.be_first(True)
        await wait_for_looks(looks, 2)
        (email_id,) = await store(pool)
        await pool.execute(f"NOTIFY {CHANNEL}")
        assert await sent.get() == email_id


async def test_it_goes_on_where_workers_take_what_filled_the_broker_and_nobody_tells(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "POLL_SECONDS", 3_600.0)
    # Each look finds all that there is: what comes next is not due to one that finds more.
    monkeypatch.setattr(whole_looks, "SHARE", 1e-9)
    monkeypatch.setattr(whole_looks.WholeLooks, "begin", lambda _: True)
    sent: asyncio.Queue[UUID] = asyncio.Queue()
    send = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, sent.put_nowait)
    dispatcher = Dispatcher(pool, send=one_email.each(send), depth=4, concurrency=1)
    dispatcher.be_first(True)
    emails = await store(pool, 40)
    async with asyncio.timeout(60), running(dispatcher):
        for email_id in emails:
            assert await sent.get() == email_id
            await one_email.claim(pool, email_id, lease=LEASE, worker="a worker")


class Died(Exception):  # noqa: N818
    """Nothing more comes of this process."""


# The dead entries of what was taken.


async def test_a_look_from_the_mark_does_not_walk_over_what_was_taken(
    pool: Pool, database_url: str
) -> None:
    """With a transaction open elsewhere, because of which no dead entry can be removed."""
    holder = await asyncpg.connect(database_url)
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await holder.fetch("SELECT FROM incoming_emails")
    await store(pool, 4_000)
    dispatcher = Dispatcher(pool, send=lambda _: None, depth=10_000, concurrency=1)
    async with pool.acquire() as connection:
        for _ in range(3_000 // BATCH):
            assert await dispatcher.dispatch_batch(connection)
            await connection.execute(
                "UPDATE incoming_emails SET processing_status = 'completed'"
                " WHERE processing_status = 'queued'"
            )

        async def dead_entries(since: Since) -> int:
            """How many rows of the table were looked up for nothing, or to be taken."""
            transaction = connection.transaction()
            await transaction.start()
            rows = await connection.fetch(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {dispatching.QUEUE}",
                *(1, 1_000, 1, since.received_at, since.queued_at, LEASE, 100),
            )
            await transaction.rollback()
            return sum(heap_fetches(json.loads(rows[0][0])[0]["Plan"]))

        assert await dead_entries(THE_BEGINNING) > 5_000
        # Those of its last batch.
        assert await dead_entries(dispatcher._mark) <= BATCH + 10
    await holder.close()


def heap_fetches(plan: dict[str, Any]) -> list[int]:
    """Those of all index-only scans in a plan."""
    inner = [n for one in plan.get("Plans", []) for n in heap_fetches(one)]
    return [plan.get("Heap Fetches", 0), *inner]


async def test_an_email_that_comes_later_with_an_older_time_is_found_by_a_whole_look(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(pool, 3)
    sent: list[UUID] = []
    dispatcher = Dispatcher(pool, send=sent.extend, depth=1_000, concurrency=1)
    while await dispatcher.dispatch_batch():
        pass
    old = await pool.fetchval(
        "INSERT INTO incoming_emails (from_email, received_at)"
        " VALUES ('erika@example.com', now() - interval '1 day') RETURNING id"
    )
    dispatcher._whole_looks.next_at = 1e18
    assert not await dispatcher.dispatch_batch()
    # By itself it does not wait for the next notification.
    monkeypatch.setattr(dispatcher_module, "LOOK_SECONDS", 3_600.0)
    monkeypatch.setattr(whole_looks, "SHARE", 0.5)
    async with asyncio.timeout(60), running(dispatcher):
        dispatcher._whole_looks.next_at = 0.0
        while old not in sent:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_was_not_sent_is_looked_for_from_the_beginning(pool: Pool) -> None:
    ids = await store(pool, 2 * BATCH)
    dispatcher = Dispatcher(pool, send=lambda _: None, depth=10_000, concurrency=1)
    assert await dispatcher.dispatch_batch()

    def refuse(_: object) -> None:
        raise ConnectionError("the broker is away")

    dispatcher._whole_looks.next_at = 1e18
    dispatcher._send = refuse
    with pytest.raises(ConnectionError):
        await dispatcher.dispatch_batch()
    sent: list[UUID] = []
    dispatcher._send = sent.extend
    assert await dispatcher.dispatch_batch()
    assert sent == ids[BATCH:]
