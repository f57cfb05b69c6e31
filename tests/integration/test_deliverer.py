"""Deliverers beside each other, with a real PostgreSQL and a real receiver that fails, hangs,
refuses, redirects, says too much and dies."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from fake_receiver import (
    OTHER_SECRET,
    SECRET,
    Delivery,
    FakeReceiver,
    answer,
    die,
    endless,
    hang,
    running_receiver,
)
from structlog.testing import capture_logs
from support import WAIT_SECONDS, make_settings

from app.database.engine import DB
from app.jobs.delivery import DeliveryThread
from app.jobs.transitions import erasing
from app.sync import breaker as breaking
from app.sync import function, transitions
from app.sync.breaker import Breaker, receiver_name
from app.sync.deliverer import Deliverer
from app.sync.event import Event, EventMaker
from app.sync.function import FunctionReceiver, PermanentFailure, Retry
from app.sync.limits import Limits
from app.sync.receiver import HttpReceiver, ReceiverNotAllowedError, check_receiver
from app.sync.recorder import Stored, Tried

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LONG_AGO = datetime(2026, 11, 1, tzinfo=UTC)
USES_UP_NONE = "delivery failed, which uses up no try"


@pytest.fixture
async def receiver() -> AsyncIterator[FakeReceiver]:
    async with running_receiver() as receiver:
        yield receiver


class World:
    """A deliverer and what it works with."""

    def __init__(self, pool: Pool, url: str, function: Any = None, **settings: Any) -> None:
        self.pool = pool
        to = {"sync": "tests.x:y"} if function else {"sync_url": url, "sync_secrets": SECRET}
        self.settings = make_settings(
            **{
                **to,
                "sync_failed": True,
                "sync_retry_seconds": "0,60,60",
                "sync_timeout_seconds": 60,
                "sync_breaker_failures": 1_000,
                **settings,
            }
        )
        self.name = receiver_name(self.settings)
        maker = EventMaker(self.settings)
        self.breaker = Breaker(
            pool,
            self.name,
            failures=self.settings.sync_breaker_failures,
            first_pause_seconds=self.settings.sync_breaker_seconds,
        )
        self.receiver = (
            FunctionReceiver(self.settings, function)
            if function
            else HttpReceiver(self.settings, maker)
        )
        self.deliverer = Deliverer(
            pool,
            receiver=self.receiver,
            maker=maker,
            breaker=self.breaker,
            limits=Limits.from_settings(self.settings),
            worker="w",
        )

    async def add(self, emails: int = 1, **columns: Any) -> list[UUID]:
        """Store emails that have ended and are due."""
        values = {
            "processing_status": "completed",
            "from_email": "erika@example.com",
            "sync_status": "pending",
            "sync_version": 1,
            "sync_next_attempt_at": LONG_AGO,
            "received_at": LONG_AGO,
            "completed_at": LONG_AGO,
            **columns,
        }
        names, places = ", ".join(values), ", ".join(f"${n}" for n in range(1, len(values) + 1))
        insert = f"INSERT INTO incoming_emails ({names}) VALUES ({places}) RETURNING id"
        return [await self.pool.fetchval(insert, *values.values()) for _ in range(emails)]

    async def row(self) -> dict[str, Any]:
        [row] = await self.pool.fetch("SELECT * FROM incoming_emails")
        return dict(row)

    async def states(self) -> Counter[str]:
        rows = await self.pool.fetch("SELECT sync_status FROM incoming_emails")
        return Counter(row["sync_status"] for row in rows)

    async def stands(self) -> dict[str, Any]:
        """The receiver's row."""
        return await breaking.read(self.pool, self.name) or {}

    async def story(self) -> list[tuple[int | None, str]]:
        """Of all emails: the number of each try, and what is told of it."""
        rows = await self.pool.fetch("SELECT attempt, text FROM email_events ORDER BY id")
        return [(row["attempt"], row["text"]) for row in rows]

    async def let_time_pass(self) -> None:
        """Everything is due; the receiver has rested."""
        await self.pool.execute(
            "UPDATE incoming_emails SET sync_next_attempt_at = $1 WHERE sync_status = 'pending'",
            LONG_AGO,
        )
        await self.pool.execute(
            "UPDATE sync_receivers SET probe_at = $1, rests_until = $1", LONG_AGO
        )


@asynccontextmanager
async def working(pool: Pool, url: str = "", **settings: Any) -> AsyncIterator[World]:
    world = World(pool, url, **settings)
    await world.breaker.make()
    try:
        yield world
    finally:
        await world.deliverer.close(0)
        await world.receiver.aclose()


async def test_what_is_due_is_delivered_signed_over_connections_that_are_used_again(
    pool: Pool, receiver: FakeReceiver
) -> None:
    secrets = f"{OTHER_SECRET},{SECRET}"
    async with working(pool, receiver.url, sync_concurrency=5, sync_secrets=secrets) as world:
        ids = await world.add(20, extracted_data='{"order": 7}')
        while await world.deliverer.run_once():
            pass
        assert await world.states() == {"synced": 20}
        assert Counter(event["data"]["id"] for event in receiver.events) == Counter(map(str, ids))
        assert all(event["data"]["extracted_data"] == {"order": 7} for event in receiver.events)
        ids_of_requests = {delivery.webhook_id for delivery in receiver.deliveries}
        assert ids_of_requests == {f"email_{email_id.hex}_1" for email_id in ids}
        assert receiver.connections <= 5
        history = await pool.fetch("SELECT kind, attempt, text FROM email_events")
        assert [tuple(entry) for entry in history] == [("delivery", 1, "delivered")] * 20
        assert (await world.stands())["failures"] == 0


async def test_a_failure_is_tried_again_with_the_same_id_until_no_try_is_left(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(500, b"no \x00 disk " + b"x" * 10_000)
    async with working(pool, receiver.url) as world:
        await world.add()
        for tries in range(1, 4):
            assert await world.deliverer.run_once() == 1
            row = await world.row()
            assert row["sync_retry_count"] == tries
            assert row["sync_error"].startswith("the receiver answered 500: no  disk xxx")
            assert len(row["sync_error"]) < 600
            assert row["sync_status"] == ("pending" if tries < 3 else "failed")
            assert await world.deliverer.run_once() == 0
            await world.let_time_pass()
        assert len({delivery.webhook_id for delivery in receiver.deliveries}) == 1
        history = [row["text"] for row in await pool.fetch("SELECT text FROM email_events")]
        assert history == [
            *["delivery failed: the receiver answered 500"] * 2,
            "delivery failed for good: the receiver answered 500",
        ]


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (die, "ended the connection"),
        (endless(500), "answered 500: all work and no play"),
        (answer(500, b"y" * 10_000_000), "answered 500: yyy"),
        (answer(302, location="http://169.254.169.254/"), "a redirect, which is not followed"),
        (answer(404, b"gone fishing"), "answered 404: gone fishing"),
        (answer(500, b"\x1f\x8b", content_encoding="gzip"), "answered 500"),
    ],
    ids=["dies", "never ends", "10 MB", "redirects", "refuses", "is compressed"],
)
async def test_whatever_a_receiver_does_is_bounded_and_recorded(
    pool: Pool, receiver: FakeReceiver, respond: Any, said: str
) -> None:
    receiver.respond = respond
    async with working(pool, receiver.url) as world:
        await world.add()
        assert await world.deliverer.run_once() == 1
        row = await world.row()
        assert said in row["sync_error"]
        assert len(row["sync_error"]) < 700
        assert "s3cret" not in row["sync_error"]
        assert (row["sync_status"], row["sync_retry_count"]) == ("pending", 1)
        assert len(receiver.deliveries) == 1


async def test_a_receiver_that_hangs_is_waited_for_no_longer_than_set(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = hang
    async with working(pool, receiver.url, sync_timeout_seconds=0.2) as world:
        await world.add()
        assert await world.deliverer.run_once() == 1
        assert (await world.row())["sync_retry_count"] == 1


@pytest.mark.parametrize("respond", [answer(200, b"x" * 10_000_000), endless(200)])
async def test_what_was_taken_is_delivered_whatever_is_said_besides(
    pool: Pool, receiver: FakeReceiver, respond: Any
) -> None:
    receiver.respond = respond
    async with working(pool, receiver.url) as world:
        await world.add()
        await world.deliverer.run_once()
        assert (await world.row())["sync_status"] == "synced"


async def test_a_receiver_that_gets_too_much_is_left_alone_as_it_asks(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(429, retry_after="120")
    async with working(pool, receiver.url, sync_concurrency=4) as world:
        await world.add(6)
        await world.deliverer.run_once()
        asked = len(receiver.deliveries)
        rows = await pool.fetch("SELECT * FROM incoming_emails WHERE sync_error IS NOT NULL")
        assert len(rows) == asked <= 4
        # It says nothing of the emails.
        assert {row["sync_retry_count"] for row in rows} == {0}
        soon = datetime.now(UTC) + timedelta(seconds=100)
        assert all(row["sync_next_attempt_at"] > soon for row in rows)
        stands = await world.stands()
        assert stands["rests_until"] > soon
        assert stands["reason"] == "the receiver answered 429"
        assert await world.deliverer.run_once() == 0
        receiver.respond = answer(204)
        await world.let_time_pass()
        # Not as many at once as before.
        assert 0 < await world.deliverer.run_once() < 4


async def test_a_receiver_that_wants_nothing_more_pauses_delivery_until_an_operator_resumes(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(410, b"moved to the new system")
    async with working(pool, receiver.url, sync_concurrency=1) as world:
        await world.add(2)
        await world.deliverer.run_once()
        stands = await world.stands()
        assert stands["paused_at"] is not None
        # What it said may quote an email; that stands with the email alone.
        assert stands["pause_reason"] == "the receiver answered 410"
        said = "SELECT count(*) FROM incoming_emails WHERE sync_error LIKE '%moved to the new%'"
        assert await pool.fetchval(said) == 1
        await world.let_time_pass()
        assert await world.deliverer.run_once() == 0
        assert await pool.fetchval("SELECT max(sync_retry_count) FROM incoming_emails") == 0
        receiver.respond = answer(204)
        assert await breaking.resume(pool, world.name)
        while await world.deliverer.run_once():
            pass
        assert await world.states() == {"synced": 2}


async def test_a_receiver_that_is_down_gets_one_probe_of_all_workers_together(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(503)
    options: dict[str, Any] = {"sync_concurrency": 5, "sync_breaker_failures": 5}
    async with (
        working(pool, receiver.url, **options) as world,
        working(pool, receiver.url, **options) as other,
    ):
        await world.add(50)
        await world.deliverer.run_once()
        assert (await world.stands())["state"] == "open"
        tried = len(receiver.deliveries)
        assert tried == 5
        assert await world.deliverer.run_once() == await other.deliverer.run_once() == 0
        # One probe, whoever looks, and however often; no email's tries are used up.
        for probes in range(1, 4):
            await world.let_time_pass()
            begun = await asyncio.gather(
                *(one.deliverer.run_once() for one in (world, other, world, other))
            )
            assert sum(begun) == 1
            assert len(receiver.deliveries) == tried + probes
            stands = await world.stands()
            assert (stands["state"], stands["probes"]) == ("open", probes)
            pause = stands["probe_at"] - datetime.now(UTC)
            assert pause > timedelta(seconds=4 * 2**probes)
        assert await pool.fetchval("SELECT sum(sync_retry_count) FROM incoming_emails") == tried
        # While a probe is on its way, nobody makes another.
        receiver.respond = hang
        await world.let_time_pass()
        hanging = asyncio.create_task(world.deliverer.run_once())
        async with asyncio.timeout(WAIT_SECONDS):
            while len(receiver.deliveries) < tried + 4:
                await receiver.came.wait()
                receiver.came.clear()
        assert (await world.stands())["state"] == "half_open"
        assert await other.deliverer.run_once() == 0
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        # One that vanished counts as lost after a while.
        receiver.respond = answer(204)
        await world.let_time_pass()
        while await other.deliverer.run_once():
            await world.let_time_pass()
        stands = await world.stands()
        assert (stands["state"], stands["failures"], stands["opened_at"]) == ("closed", 0, None)
        assert (await world.states())["synced"] >= 49


async def test_what_fails_after_others_found_the_receiver_down_is_no_try_of_its_email(
    pool: Pool, receiver: FakeReceiver
) -> None:
    go_on = asyncio.Event()

    async def fail_late(delivery: Any, writer: Any) -> None:
        await go_on.wait()
        await answer(500)(delivery, writer)

    receiver.respond = fail_late
    async with working(pool, receiver.url, sync_breaker_failures=5) as world:
        await world.add(sync_error="before")
        late = asyncio.create_task(world.deliverer.run_once())
        async with asyncio.timeout(WAIT_SECONDS):
            await receiver.came.wait()
        assert await world.breaker.fail(5, "found by others")
        go_on.set()
        await late
        row = await world.row()
        assert (row["sync_status"], row["sync_retry_count"]) == ("pending", 0)
        assert row["sync_next_attempt_at"] == LONG_AGO
        assert await world.story() == [(None, f"{USES_UP_NONE}: the receiver answered 500")]


async def test_what_uses_up_no_try_uses_up_none_where_its_row_is_locked(
    pool: Pool, receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(pool, receiver.url, sync_retry_seconds="0") as world:
        await world.add()
        looked = asyncio.Event()
        store = world.deliverer._recorder.store

        async def store_and_tell(tried: Tried) -> Stored:
            stored = await store(tried)
            looked.set()
            return stored

        monkeypatch.setattr(world.deliverer._recorder, "store", store_and_tell)
        go_on = asyncio.Event()

        async def fail_late(delivery: Any, writer: Any) -> None:
            await go_on.wait()
            await answer(500)(delivery, writer)

        receiver.respond = fail_late
        task = asyncio.create_task(world.deliverer.run_once())
        async with asyncio.timeout(WAIT_SECONDS):
            await receiver.came.wait()
        await world.breaker.fail(1_000, "found by others")
        async with pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM incoming_emails FOR UPDATE")
            go_on.set()
            async with asyncio.timeout(WAIT_SECONDS):
                await looked.wait()
        async with asyncio.timeout(WAIT_SECONDS):
            await task
        row = await world.row()
        assert (row["sync_status"], row["sync_retry_count"]) == ("pending", 0)


async def test_a_failure_is_one_of_the_receiver_though_the_database_goes_away_in_between(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(500)
    async with working(pool, receiver.url) as world:
        await world.add()
        # What was drawn of a sequence stays so, whatever is rolled back.
        await pool.execute("CREATE SEQUENCE looks")
        await pool.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('looks') < 3 THEN RAISE deadlock_detected; END IF; RETURN NEW; END $$"
        )
        await pool.execute(
            "CREATE TRIGGER lose BEFORE UPDATE ON incoming_emails FOR EACH ROW"
            " WHEN (NEW.sync_token IS NULL) EXECUTE FUNCTION lose()"
        )
        await world.deliverer.run_once()
        assert await pool.fetchval("SELECT last_value FROM looks") == 3
        assert (await world.row())["sync_retry_count"] == 1
        assert (await world.stands())["failures"] == 1


@pytest.mark.parametrize("status", [410, 429, 503])
async def test_a_try_that_uses_up_none_is_in_the_story_without_a_number(
    pool: Pool, receiver: FakeReceiver, status: int
) -> None:
    receiver.respond = answer(status, b"no, erika@example.com")
    async with working(pool, receiver.url) as world:
        await world.add()
        # A probe.
        await world.breaker.fail(1_000, "found by others")
        assert await world.deliverer.run_once() == 0
        await world.let_time_pass()
        assert await world.deliverer.run_once() == 1
        failed = (None, f"{USES_UP_NONE}: the receiver answered {status}")
        assert await world.story() == [failed]
        # None was sent.
        assert await world.deliverer.run_once() == 0
        assert await world.story() == [failed]
        receiver.respond = answer(204)
        await breaking.resume(pool, world.name)
        await world.let_time_pass()
        assert await world.deliverer.run_once() == 1
        assert await world.story() == [failed, (1, "delivered")]


async def test_of_a_receiver_that_answers_429_without_end_the_stories_stay_short(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(429)
    async with working(pool, receiver.url, sync_breaker_failures=10, sync_concurrency=5) as world:
        await world.add(100)
        for _ in range(20):
            await world.deliverer.run_once()
        story = await world.story()
        assert set(story) == {(None, f"{USES_UP_NONE}: the receiver answered 429")}
        assert 10 <= len(story) == len(receiver.deliveries) < 15


async def test_a_probe_that_is_refused_shows_that_the_receiver_is_there(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(503)
    async with working(pool, receiver.url, sync_breaker_failures=1) as world:
        await world.add()
        await world.deliverer.run_once()
        assert (await world.stands())["state"] == "open"
        receiver.respond = answer(422)
        await world.let_time_pass()
        assert await world.deliverer.run_once() == 1
        assert (await world.stands())["state"] == "closed"
        assert (await world.row())["sync_retry_count"] == 2


async def test_several_emails_share_a_request_where_that_is_set(
    pool: Pool, receiver: FakeReceiver
) -> None:
    def refuse_the_bad_one(delivery: Any, writer: Any) -> Any:
        is_bad = any(event["data"]["subject"] == "bad" for event in delivery.events)
        return answer(422 if is_bad else 204)(delivery, writer)

    receiver.respond = refuse_the_bad_one
    async with working(pool, receiver.url, sync_batch=10, sync_concurrency=2) as world:
        await world.add(14)
        [bad] = await world.add(subject="bad")
        await world.deliverer.run_once()
        assert sorted(len(one.events) for one in receiver.deliveries) == [5, 10]
        assert all(one.webhook_id.startswith("batch_") for one in receiver.deliveries)
        first = {one.webhook_id: one.body for one in receiver.deliveries}
        # Those that were refused together come again together, under the same id; then each alone.
        await world.let_time_pass()
        await world.deliverer.run_once()
        again = receiver.deliveries[2:]
        assert [first[one.webhook_id] for one in again] == [one.body for one in again]
        await world.let_time_pass()
        while await world.deliverer.run_once():
            pass
        assert await world.states() == {"synced": 14, "failed": 1}
        assert {one["id"] for one in receiver.events} >= {f"email_{bad.hex}_1"}


@pytest.mark.parametrize("pauses", ["0", "0,60", "0,60,60"])
async def test_no_email_is_given_up_by_a_refusal_that_it_shared(
    pool: Pool, receiver: FakeReceiver, pauses: str
) -> None:
    def refuse_the_bad_one(delivery: Any, writer: Any) -> Any:
        is_bad = any(event["data"]["subject"] == "bad" for event in delivery.events)
        return answer(422 if is_bad else 204)(delivery, writer)

    receiver.respond = refuse_the_bad_one
    async with working(pool, receiver.url, sync_batch=10, sync_retry_seconds=pauses) as world:
        await world.add(9)
        [bad] = await world.add(subject="bad")
        while await world.deliverer.run_once():
            await world.let_time_pass()
        assert len(receiver.deliveries[0].events) == 10
        assert await world.states() == {"synced": 9, "failed": 1}
        sent = [one.events for one in receiver.deliveries]
        assert [str(bad)] in [[event["data"]["id"] for event in events] for events in sent]


async def test_what_is_said_of_several_stands_with_none_as_it_may_quote_another(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(422, b"no such customer: erika@example.com")
    async with working(pool, receiver.url, sync_batch=10, sync_retry_seconds="0,0,0,0") as world:
        await world.add(2)
        await world.deliverer.run_once()
        said = {row["sync_error"] for row in await pool.fetch("SELECT * FROM incoming_emails")}
        assert said == {"the receiver answered 422"}
        while await world.deliverer.run_once():
            await world.let_time_pass()
        # Alone in the end.
        rows = await pool.fetch("SELECT sync_error FROM incoming_emails")
        assert all("no such customer" in row["sync_error"] for row in rows)


async def test_what_is_said_of_an_erasure_stands_nowhere(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(422, b"no such customer: erika@example.com")
    async with working(pool, receiver.url) as world:
        [email_id] = await world.add(sync_status="synced", synced_at=LONG_AGO)
        assert await transitions.tell_erased(pool, [email_id]) == 1
        with capture_logs() as logs:
            assert await world.deliverer.run_once() == 1
        assert await pool.fetchval("SELECT sync_error FROM sync_events") == (
            "the receiver answered 422"
        )
        # Whoever reads the log knows the email by its id, and no event.
        assert [(one["event"], one["email_id"]) for one in logs] == [
            ("delivery_failed", str(email_id))
        ]


async def test_several_are_no_more_in_one_request_than_the_bytes_that_are_set(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(
        pool, receiver.url, sync_batch=100, sync_batch_max_bytes=8_000, sync_concurrency=1
    ) as world:
        await world.add(6, raw_body_text="x" * 2_500)
        await world.deliverer.run_once()
        assert [len(one.events) for one in receiver.deliveries] == [2, 2, 2]
        assert max(len(one.body) for one in receiver.deliveries) <= 8_000 + 2
        # Alone it is longer than that, and goes nevertheless.
        await world.add(2, raw_body_text="y" * 20_000)
        await world.deliverer.run_once()
        assert [len(one.events) for one in receiver.deliveries[3:]] == [1, 1]
        assert await world.states() == {"synced": 8}


@pytest.mark.parametrize("is_removed", [True, False])
async def test_a_request_ends_as_soon_as_one_of_its_emails_is_erased(
    pool: Pool, receiver: FakeReceiver, is_removed: bool
) -> None:
    """Else it might come after the event by which the receiver is told so."""
    receiver.respond = hang
    async with working(pool, receiver.url, sync_batch=10, lease_seconds=600) as world:
        erased, other = await world.add(2)
        task = asyncio.create_task(world.deliverer.run_once())
        async with asyncio.timeout(WAIT_SECONDS):
            await receiver.came.wait()
        async with pool.acquire() as connection, connection.transaction():
            if is_removed:
                await transitions.tell_erased(connection, [erased])
                await connection.execute("DELETE FROM incoming_emails WHERE id = $1", erased)
            else:
                await erasing.empty(connection, [erased], told="redacted", whole=True)
        await world.deliverer.extend()
        async with asyncio.timeout(WAIT_SECONDS):
            await task
        held = "SELECT count(*) FROM incoming_emails WHERE sync_token IS NOT NULL"
        assert await pool.fetchval(held) == 0
        # It was cut, and did not wait for its answer.
        assert await pool.fetchval("SELECT sum(sync_retry_count) FROM incoming_emails") == 0
        # The event waits for as long as the request might have been on its way.
        due = "SELECT sync_next_attempt_at > now() FROM sync_events WHERE email = $1"
        assert await pool.fetchval(due, erased)
        receiver.respond = answer(204)
        await world.deliverer.run_once()
        assert (await world.states())["synced"] == 1
        assert receiver.events[-1]["data"]["id"] == str(other)


async def test_a_request_may_go_on_only_where_its_lease_was_extended(
    pool: Pool, receiver: FakeReceiver
) -> None:
    """A row that somebody has locked keeps the lease that it had."""
    receiver.respond = hang
    async with working(pool, receiver.url, lease_seconds=600) as world:
        await world.add()
        task = asyncio.create_task(world.deliverer.run_once())
        async with asyncio.timeout(WAIT_SECONDS):
            await receiver.came.wait()
        [timeout] = world.deliverer._sender._until.values()
        begun = timeout.when()
        assert begun is not None
        async with pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM incoming_emails FOR UPDATE")
            await world.deliverer.extend()
            assert timeout.when() == begun
        await world.deliverer.extend()
        extended = timeout.when()
        assert extended is not None
        assert extended > begun
        await world.deliverer.close(0)
        await task


async def test_no_request_outlives_a_lease_that_nobody_extends(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = hang
    async with working(pool, receiver.url, lease_seconds=1) as world:
        await world.add()
        async with asyncio.timeout(WAIT_SECONDS / 4):
            assert await world.deliverer.run_once() == 1
        row = await world.row()
        # It says nothing of the receiver, nor of the email.
        assert (row["sync_token"], row["sync_retry_count"]) == (None, 0)


async def test_a_function_that_hangs_at_some_holds_up_no_other(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function, "MOST_HUNG", 2)
    go_on = threading.Event()

    def hang_at_the_bad_ones(event: Event) -> None:
        if event.data["subject"] == "bad":
            go_on.wait()

    try:
        async with working(
            pool,
            function=hang_at_the_bad_ones,
            sync_concurrency=2,
            sync_timeout_seconds=0.2,
            sync_breaker_failures=4,
            sync_retry_seconds="0,0,0,0,0,0,0,0",
        ) as world:
            await world.add(2, subject="bad")
            await world.deliverer.run_once()
            hung = await pool.fetch("SELECT sync_retry_count FROM incoming_emails")
            assert [row["sync_retry_count"] for row in hung] == [1, 1]
            [good] = await world.add(sync_next_attempt_at=LONG_AGO - timedelta(days=1))
            await world.deliverer.run_once()
            of_good = "SELECT sync_status FROM incoming_emails WHERE id = $1"
            assert await pool.fetchval(of_good, good) == "synced"
            # Until there is no thread left: then it is not called, which is no try.
            while (await world.stands())["state"] == "closed":
                await world.let_time_pass()
                await world.deliverer.run_once()
            assert "threads hang: restart this worker" in (await world.stands())["reason"]
            rows = await pool.fetch("SELECT * FROM incoming_emails WHERE subject = 'bad'")
            assert sum(row["sync_retry_count"] for row in rows) == 4
            assert len(await world.story()) == 4 + 1
            go_on.set()
            await world.add()
            while (await world.states())["synced"] < 4:
                await world.let_time_pass()
                await world.deliverer.run_once()
    finally:
        go_on.set()


async def test_a_function_that_refuses_one_of_several_loses_no_other(pool: Pool) -> None:
    async def refuse_the_bad_one(events: list[Event]) -> None:
        if any(event.data["subject"] == "bad" for event in events):
            raise PermanentFailure("bad")

    async with working(pool, function=refuse_the_bad_one, sync_batch=10) as world:
        await world.add(9)
        await world.add(subject="bad")
        while await world.deliverer.run_once():
            await world.let_time_pass()
        assert await world.states() == {"synced": 9, "failed": 1}


@pytest.mark.parametrize("fails", ["first", "while it is open"])
async def test_the_row_of_the_receiver_holds_nothing_that_may_quote_an_email(
    pool: Pool, receiver: FakeReceiver, fails: str
) -> None:
    receiver.respond = answer(503, b"cannot store erika@example.com")
    async with working(pool, receiver.url, sync_breaker_failures=1) as world:
        await world.add()
        await world.deliverer.run_once()
        if fails == "while it is open":
            await world.let_time_pass()
            assert await world.deliverer.run_once() == 1
        assert "erika" in (await world.row())["sync_error"]
        stands = await world.stands()
        assert (stands["state"], stands["reason"]) == ("open", "the receiver answered 503")


async def test_what_is_sent_alone_is_not_sent_all_at_once(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url, sync_batch=10, sync_concurrency=2) as world:
        await world.add(20, sync_retry_count=2)
        await world.deliverer.run_once()
        assert await world.states() == {"synced": 20}
        assert receiver.most_open <= 2


async def test_what_waits_for_its_turn_is_given_back_once_the_receiver_is_found_down(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(500)
    async with working(
        pool,
        receiver.url,
        sync_batch=20,
        sync_concurrency=2,
        sync_breaker_failures=3,
        sync_retry_seconds=(0.0,) * 9,
    ) as world:
        await world.add(40, sync_retry_count=2)
        await world.deliverer.run_once()
        assert (await world.stands())["state"] == "open"
        # Those that brought it about, and what was under way meanwhile.
        assert len(receiver.deliveries) <= 8
        assert await world.states() == {"pending": 40}
        held = "SELECT count(*) FROM incoming_emails WHERE sync_token IS NOT NULL"
        assert await pool.fetchval(held) == 0


async def test_one_email_that_brings_the_receiver_down_is_not_every_probe(
    pool: Pool, receiver: FakeReceiver
) -> None:
    def fail_at_the_bad_one(delivery: Any, writer: Any) -> Any:
        is_bad = delivery.json["data"]["subject"] == "bad"
        return answer(500 if is_bad else 204)(delivery, writer)

    receiver.respond = fail_at_the_bad_one
    async with working(pool, receiver.url, sync_concurrency=1) as world:
        await world.add(3)
        await world.add(subject="bad", sync_next_attempt_at=LONG_AGO + timedelta(days=1))
        await world.breaker.fail(1_000, "by others")
        rested = "UPDATE sync_receivers SET probe_at = $1"
        for _ in range(2):
            await pool.execute(rested, LONG_AGO)
            assert await world.deliverer.run_once() == 1
        assert (await world.stands())["state"] == "closed"


@pytest.mark.parametrize("order", ["none", "ticket"])
async def test_what_was_a_probe_goes_with_the_others_when_the_receiver_is_back(
    pool: Pool, receiver: FakeReceiver, order: str
) -> None:
    receiver.respond = answer(503)
    async with working(pool, receiver.url, sync_order=order) as world:
        ids = [one for ticket in "123" for one in await world.add(zendesk_ticket_id=ticket)]
        await world.breaker.fail(1_000, "by others")
        rested = "UPDATE sync_receivers SET probe_at = $1"
        for _ in range(3):
            await pool.execute(rested, LONG_AGO)
            assert await world.deliverer.run_once() == 1
        assert {event["data"]["id"] for event in receiver.events} == set(map(str, ids))
        receiver.respond = answer(204)
        if order == "none":
            await breaking.resume(pool, world.name)
        else:
            await pool.execute(rested, LONG_AGO)
        while await world.deliverer.run_once():
            pass
        delivered = [event["data"]["id"] for event in receiver.events[3:]]
        assert sorted(delivered) == sorted(map(str, ids))


async def test_one_email_that_no_receiver_takes_is_a_probe_only_after_the_others(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = answer(500)
    async with working(pool, receiver.url) as world:
        await world.add(5)
        later = LONG_AGO + timedelta(days=1)
        failed = await world.add(5, sync_next_attempt_at=later, sync_error="answered 500")
        await world.breaker.fail(1_000, "by others")
        for _ in range(5):
            await pool.execute("UPDATE sync_receivers SET probe_at = $1", LONG_AGO)
            assert await world.deliverer.run_once() == 1
        probed = {event["data"]["id"] for event in receiver.events}
        assert len(probed) == 5
        assert not probed & set(map(str, failed))


async def test_an_event_that_no_receiver_takes_is_not_every_probe(
    pool: Pool, receiver: FakeReceiver
) -> None:
    def fail_at_the_event(delivery: Any, writer: Any) -> Any:
        is_event = delivery.json["type"] == "email.erased"
        return answer(500 if is_event else 204)(delivery, writer)

    receiver.respond = fail_at_the_event
    async with working(pool, receiver.url) as world:
        await transitions.tell_erased(pool, await world.add(sync_status="synced"))
        await world.add(3)
        await world.breaker.fail(1_000, "by others")
        for _ in range(2):
            await pool.execute("UPDATE sync_receivers SET probe_at = $1", LONG_AGO)
            assert await world.deliverer.run_once()
        assert (await world.stands())["state"] == "closed"


async def test_as_a_cloud_event_the_content_type_says_so(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url, sync_format="cloudevents") as world:
        await world.add()
        await world.deliverer.run_once()
        [delivery] = receiver.deliveries
        assert delivery.headers["content-type"].startswith("application/cloudevents+json")
        assert delivery.json["specversion"] == "1.0"


async def test_in_the_order_of_tickets_one_is_delivered_after_the_other(
    pool: Pool, receiver: FakeReceiver
) -> None:
    failing = {"first": 1}

    def fail_once(delivery: Any, writer: Any) -> Any:
        fails = failing.pop(delivery.json["data"]["subject"], None)
        return answer(422 if fails else 204)(delivery, writer)

    receiver.respond = fail_once
    async with working(pool, receiver.url, sync_order="ticket") as world:
        for minute, subject in enumerate(("first", "second", "third")):
            at = LONG_AGO + timedelta(minutes=minute)
            await world.add(zendesk_ticket_id="1", subject=subject, received_at=at)
        await world.add(zendesk_ticket_id="2", subject="other")
        while await world.deliverer.run_once():
            pass
        assert {one["data"]["subject"] for one in receiver.events} == {"first", "other"}
        await pool.execute(
            "UPDATE incoming_emails SET sync_next_attempt_at = now() WHERE subject = 'first'"
        )
        while await world.deliverer.run_once():
            pass
        told = [(one["data"]["subject"], one["data"]["ticket_number"]) for one in receiver.events]
        told.remove(("other", 1))
        assert told == [("first", 1), ("first", 1), ("second", 2), ("third", 3)]


async def test_in_the_order_of_tickets_a_long_one_that_waits_holds_up_no_other(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url, sync_order="ticket") as world:
        ended = datetime.now(UTC) - timedelta(minutes=50)
        soon = datetime.now(UTC) + timedelta(hours=1)
        await world.add(
            zendesk_ticket_id="1",
            received_at=LONG_AGO - timedelta(days=1),
            sync_next_attempt_at=soon,
        )
        behind = await world.add(350, zendesk_ticket_id="1", completed_at=ended)
        later = LONG_AGO + timedelta(days=1)
        [other] = await world.add(zendesk_ticket_id="2", sync_next_attempt_at=later)
        await world.deliverer.run_once()
        await world.deliverer.run_once()
        assert [event["data"]["id"] for event in receiver.events] == [str(other)]
        # They are looked at again after a tenth of the time that they have waited.
        rows = await pool.fetch(
            "SELECT sync_next_attempt_at FROM incoming_emails WHERE id = ANY($1)", behind
        )
        waits = {round((row[0] - ended).total_seconds() / 60) for row in rows}
        assert waits == {55}


async def test_in_the_order_of_tickets_what_has_no_ticket_waits_for_nothing(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url, sync_order="ticket") as world:
        soon = datetime.now(UTC) + timedelta(hours=1)
        first = LONG_AGO - timedelta(days=1)
        await world.add(zendesk_ticket_id="", received_at=first, sync_next_attempt_at=soon)
        await world.add(zendesk_ticket_id="")
        await world.deliverer.run_once()
        assert await world.states() == {"pending": 1, "synced": 1}
        # Nor does one that is through let others go that wait for a time of their own.
        await world.add(
            received_at=datetime.now(UTC), sync_next_attempt_at=soon, sync_error="answered 429"
        )
        await world.add()
        await world.deliverer.run_once()
        assert await world.states() == {"pending": 2, "synced": 2}
        assert await pool.fetchval("SELECT min(sync_next_attempt_at) FROM incoming_emails") == soon


async def test_a_delivery_is_recorded_once_though_the_next_of_its_ticket_cannot_be_let_go(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url, sync_order="ticket") as world:
        for subject, minute in (("first", 0), ("second", 1)):
            at = LONG_AGO + timedelta(minutes=minute)
            await world.add(zendesk_ticket_id="1", subject=subject, received_at=at)
        await pool.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE deadlock_detected; END $$"
        )
        await pool.execute(
            "CREATE TRIGGER lose BEFORE UPDATE ON incoming_emails FOR EACH ROW WHEN"
            " (NEW.subject = 'second' AND NEW.sync_next_attempt_at < OLD.sync_next_attempt_at)"
            " EXECUTE FUNCTION lose()"
        )
        with capture_logs() as logs:
            await world.deliverer.run_once()
        told = [entry["event"] for entry in logs]
        assert "delivered" in told
        assert "delivery_claim_lost" not in told
        assert "next_of_ticket_not_let_go" in told
        await pool.execute("DROP TRIGGER lose ON incoming_emails")
        await pool.execute("UPDATE incoming_emails SET sync_next_attempt_at = now()")
        while await world.deliverer.run_once():
            pass
        assert [one["data"]["subject"] for one in receiver.events] == ["first", "second"]


async def test_what_a_killed_worker_held_is_delivered_by_another_under_the_same_id(
    pool: Pool, receiver: FakeReceiver
) -> None:
    """Killed after the request and before the result: the receiver knows it again by its id."""
    receiver.respond = hang
    async with working(pool, receiver.url) as killed, working(pool, receiver.url) as other:
        await killed.add()
        task = asyncio.create_task(killed.deliverer.run_once())
        async with asyncio.timeout(WAIT_SECONDS):
            await receiver.came.wait()
        [[held]] = killed.deliverer._held.values()
        assert await other.deliverer.run_once() == 0
        await pool.execute("UPDATE incoming_emails SET sync_lease_expires_at = now()")
        receiver.respond = answer(204)
        assert await other.deliverer.run_once() == 1
        assert [one.webhook_id for one in receiver.deliveries] == [f"email_{held.id.hex}_1"] * 2
        row = await other.row()
        assert row["sync_status"] == "synced"
        # It wakes: what it has lost it lets go, and changes nothing.
        await killed.deliverer.extend()
        await task
        assert await killed.row() == row


async def test_a_worker_that_stops_gives_back_what_does_not_end_in_time(
    pool: Pool, receiver: FakeReceiver
) -> None:
    receiver.respond = hang
    async with working(pool, receiver.url) as world:
        await world.add()
        task = asyncio.create_task(world.deliverer.run_once())
        async with asyncio.timeout(WAIT_SECONDS):
            await receiver.came.wait()
        await world.deliverer.close(0.01)
        await task
        row = await world.row()
        assert (row["sync_status"], row["sync_token"], row["sync_retry_count"]) == (
            "pending",
            None,
            0,
        )


async def test_what_has_worn_out_its_workers_is_failed_and_not_tried_again(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url) as world:
        await world.add(sync_retry_count=2, sync_token=UUID(int=1), sync_lease_expires_at=LONG_AGO)
        await world.deliverer.run_once()
        row = await world.row()
        assert (row["sync_status"], receiver.deliveries) == ("failed", [])
        assert "vanished" in row["sync_error"]


async def test_emails_that_may_be_large_are_claimed_one_at_a_time(
    pool: Pool, receiver: FakeReceiver
) -> None:
    large = 100 * 1024 * 1024
    async with working(pool, receiver.url, sync_max_bytes=large, sync_concurrency=4) as world:
        await world.add(3)
        assert [await world.deliverer.run_once() for _ in range(4)] == [1, 1, 1, 0]


async def test_a_shorter_list_of_retries_gives_up_no_delivery_unsent(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url, sync_retry_seconds="0,60") as world:
        [email_id, refused] = await world.add(2, sync_retry_count=3, sync_error="answered 503")
        await transitions.tell_erased(pool, [email_id])
        await pool.execute("UPDATE sync_events SET sync_retry_count = 3")
        said = f"email_{refused.hex}_1"

        async def respond(delivery: Delivery, writer: asyncio.StreamWriter) -> None:
            await answer(500 if delivery.webhook_id == said else 204)(delivery, writer)

        receiver.respond = respond
        await world.deliverer.run_once()
        assert len(receiver.deliveries) == 3
        rows = await pool.fetch("SELECT id, sync_status, sync_error FROM incoming_emails")
        assert {row["id"]: row["sync_status"] for row in rows} == {
            email_id: "synced",
            refused: "failed",
        }
        assert {row["sync_error"] for row in rows} == {None, "the receiver answered 500"}
        assert await pool.fetchval("SELECT sync_status FROM sync_events") == "synced"


async def test_that_an_email_was_erased_is_delivered_too(
    pool: Pool, receiver: FakeReceiver
) -> None:
    async with working(pool, receiver.url) as world:
        [email_id] = await world.add(sync_status="synced", synced_at=LONG_AGO)
        assert await transitions.tell_erased(pool, [email_id]) == 1
        await pool.execute("DELETE FROM incoming_emails")
        assert await world.deliverer.run_once() == 1
        [event] = receiver.events
        assert (event["type"], event["data"]) == (
            "email.erased",
            {"id": str(email_id), "version": 1},
        )
        assert await world.deliverer.run_once() == 0


@pytest.mark.parametrize(("concurrency", "batch"), [(1, 1), (4, 1), (3, 10)])
async def test_a_large_erasure_and_many_emails_hold_up_each_other_by_half(
    pool: Pool, receiver: FakeReceiver, concurrency: int, batch: int
) -> None:
    async with working(pool, receiver.url, sync_concurrency=concurrency, sync_batch=batch) as world:
        erased = await world.add(90, sync_status="synced")
        await transitions.tell_erased(pool, erased)
        # As much is due of both, and of each before the other.
        await world.add(90)
        await pool.execute(
            "UPDATE sync_events SET sync_next_attempt_at = $1::timestamptz"
            " + mod(abs(hashtext(id::text)), 2) * interval '1 day'",
            LONG_AGO - timedelta(hours=12),
        )
        while len(receiver.events) < 60:
            assert await world.deliverer.run_once()
        kinds = Counter(event["type"] for event in receiver.events)
        assert abs(kinds["email.erased"] - kinds["email.completed"]) <= 1
        # What the one does not need the other has, at once.
        await pool.execute("DELETE FROM incoming_emails")
        before = len(receiver.events)
        await world.deliverer.run_once()
        assert len(receiver.events) - before == concurrency * batch


@pytest.mark.parametrize(
    ("ends", "status", "tries"),
    [
        (lambda: None, "synced", 0),
        (PermanentFailure("no such customer"), "failed", 1),
        (Retry(after=3_000), "pending", 1),
        (ConnectionError("away"), "pending", 1),
        # These would end the loop of all deliveries, or be tried again for ever without a word.
        (SystemExit("a library's"), "pending", 1),
        (KeyboardInterrupt(), "pending", 1),
        (asyncio.CancelledError(), "pending", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_delivers_in_place_of_http(
    pool: Pool, ends: Any, status: str, tries: int, is_async: bool
) -> None:
    got: list[Event] = []

    def take(event: Event) -> None:
        got.append(event)
        if isinstance(ends, BaseException):
            raise ends

    async def take_async(event: Event) -> None:
        take(event)

    function: Callable[[Event], Any] = take_async if is_async else take
    async with working(pool, function=function) as world:
        [email_id] = await world.add(subject="Päckchen")
        await world.deliverer.run_once()
        row = await world.row()
        assert (row["sync_status"], row["sync_retry_count"]) == (status, tries)
        assert [(event.email_id, event.data["subject"]) for event in got] == [
            (email_id, "Päckchen")
        ]
        if status != "synced":
            assert row["sync_error"]
        if isinstance(ends, Retry):
            assert row["sync_next_attempt_at"] > datetime.now(UTC) + timedelta(seconds=2_000)


@pytest.mark.parametrize("after", [-1, 0, 5, 86_400, timedelta.max])
async def test_a_function_says_itself_when_it_is_called_again(
    pool: Pool, after: float | timedelta
) -> None:
    """Sooner than by the schedule, or later than a receiver may ask for."""

    async def ask(event: Event) -> None:
        raise Retry(after=after)

    async with working(pool, function=ask, sync_retry_seconds="0,600,600") as world:
        await world.add()
        before = datetime.now(UTC)
        await world.deliverer.run_once()
        pause = (await world.row())["sync_next_attempt_at"] - before
        wanted = after if isinstance(after, timedelta) else timedelta(seconds=after)
        wanted = min(max(wanted, timedelta(0)), timedelta(days=365))
        assert wanted <= pause <= wanted + (datetime.now(UTC) - before)


def test_a_thread_of_deliveries_that_ends_takes_its_process_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that goes on without it would deliver nothing, and nobody would hear of it."""

    async def end(**_: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(DB, "make_pool", end)
    gave_up = threading.Event()
    DeliveryThread(make_settings(), None, gave_up.set).start()
    assert gave_up.wait(WAIT_SECONDS)


def test_a_thread_of_deliveries_that_is_stopped_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(**_: object) -> "Pool":
        return await asyncpg.create_pool("postgresql://127.0.0.1:9/x", min_size=0)

    monkeypatch.setattr(DB, "make_pool", connect)
    gave_up = threading.Event()
    thread = DeliveryThread(make_settings(), None, gave_up.set)
    thread.start()
    thread.stop()
    assert not thread._thread.is_alive()
    assert not gave_up.is_set()


async def test_a_receiver_in_a_private_network_has_to_be_named(pool: Pool) -> None:
    private = {"sync_url": "https://10.1.2.3/in", "sync_secrets": SECRET}
    with pytest.raises(ReceiverNotAllowedError, match="MAILROOM_OUTBOUND_INTERNAL_HOSTS"):
        await check_receiver(make_settings(**private))
    await check_receiver(make_settings(**private, outbound_internal_hosts="10.1.2.3"))
    await check_receiver(make_settings(sync_url="http://localhost:9/in", sync_secrets=SECRET))
    asked = {"sync_check_url": "https://10.1.2.3/check", "sync_secrets": SECRET}
    with pytest.raises(ReceiverNotAllowedError, match="MAILROOM_SYNC_CHECK_URL"):
        await check_receiver(make_settings(sync_url="http://localhost:9/in", **asked))
    metadata = {"sync_url": "https://169.254.169.254/in", "sync_secrets": SECRET}
    with pytest.raises(ReceiverNotAllowedError, match="link-local"):
        await check_receiver(make_settings(**metadata, outbound_internal_hosts="169.254.169.254"))
