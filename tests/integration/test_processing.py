"""One email from the message to its end, with every way in which a handler can end; and the
Dispatcher and the Rescuer around it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import dramatiq
import one_email
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import make_settings

from app.handlers import extract_text
from app.handlers.loading import as_handler
from app.handlers.running import result_to_json
from app.handlers.seam import PermanentFailure, Retry
from app.jobs import claimer as claimer_module
from app.jobs import dispatcher as dispatcher_module
from app.jobs import process as process_module
from app.jobs.claimer import Claimer
from app.jobs.dispatcher import BATCH, CHANNEL, Dispatcher
from app.jobs.leases import Contact, HeldClaims, extend_once
from app.jobs.outcome import LONGEST_ERROR, LONGEST_PAUSE, backoff
from app.jobs.patience import DATABASE_AWAY
from app.jobs.transitions import dispatching, keeping, operators
from app.models.fit import DEEPEST_NESTING, fit_json, fit_text
from app.models.incoming_email import IncomingEmail

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Row: TypeAlias = dict[str, Any]

LEASE = timedelta(seconds=60)
LOST = timedelta(seconds=-1)


def long_contact() -> Contact:
    """That of a process which may take over from any other."""
    return Contact(since=-1e9, last=1e18)


async def store(pool: Pool, **columns: Any) -> UUID:
    """Store an email. Returns its id."""
    values = {"from_email": "erika@example.com", "subject": "Hallo", **columns}
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(values)}) VALUES ({places}) RETURNING id",
        *values.values(),
    )
    return email_id


async def read(pool: Pool, email_id: UUID) -> Row:
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    return dict(row)


def errors_of(row: Row) -> list[tuple[int, str]]:
    return [(e["attempt"], e["error"]) for e in json.loads(row["attempt_errors"])]


def make_claimer(
    pool: Pool, handler: Any, held_claims: HeldClaims | None = None, **values: Any
) -> Claimer:
    held_claims = held_claims or HeldClaims()
    held_claims.contact = long_contact()
    handler = as_handler(handler, threads=4)
    return Claimer(make_settings(**values), handler, pool, held_claims, one_email.late_columns())


async def process(pool: Pool, handler: Any, email_id: UUID, **values: Any) -> Row:
    """Process an email once. Returns the row as it is then."""
    await one_email.process(make_claimer(pool, handler, **values), email_id)
    return await read(pool, email_id)


async def lose_claims(pool: Pool, email_id: UUID, times: int) -> None:
    """Claim an email as workers do that vanish thereafter."""
    for _ in range(times):
        made = await one_email.claim(pool, email_id, lease=LOST, worker="a worker")
        assert isinstance(made, tuple)


class Calls:
    """A handler that counts its calls."""

    def __init__(self) -> None:
        self.emails: list[IncomingEmail] = []

    async def handle(self, email: IncomingEmail) -> None:
        self.emails.append(email)


async def test_what_a_handler_returns_and_cleans_is_stored(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> dict[str, Any]:
        email.cleaned_body = f"für {email.from_email} 📦"
        email.subject = "not the handler's to change"
        return {"order": 4711, "lines": [1.5, None, {"ä": True}]}

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "completed"
    assert json.loads(row["extracted_data"]) == {"order": 4711, "lines": [1.5, None, {"ä": True}]}
    assert row["cleaned_body"] == "für erika@example.com 📦"
    assert row["subject"] == "Hallo"
    assert (row["claims"], row["retry_count"]) == (1, 0)
    assert row["completed_at"] >= row["started_at"]
    assert row["lease_expires_at"] is row["processing_error"] is None
    assert errors_of(row) == []


async def test_a_handler_may_return_nothing(pool: Pool) -> None:
    row = await process(pool, Calls().handle, await store(pool))
    assert row["processing_status"] == "completed"
    assert row["extracted_data"] is row["cleaned_body"] is None


async def test_a_handler_gets_the_whole_email_with_json_as_objects(pool: Pool) -> None:
    calls = Calls()
    attachments = [{"url": "https://example.com/1", "filename": "a.pdf", "more": [1]}]
    nested = "[" * 2_000 + "]" * 2_000
    email_id = await store(
        pool,
        zendesk_ticket_id="35436",
        raw_body_text="Guten Tag",
        attachment_urls=json.dumps(attachments),
        raw_payload=nested,
    )
    row = await process(pool, calls.handle, email_id)
    assert row["processing_status"] == "completed"
    (email,) = calls.emails
    assert email.id == email_id
    assert email.zendesk_ticket_id == "35436"
    assert email.raw_body_text == "Guten Tag"
    assert email.attachment_urls == attachments
    assert email.attempt_errors == []
    assert email.extracted_data is None
    assert email.processing_status == "processing"
    # Nested deeper than Python reads: the text as it came.
    assert email.raw_payload == row["raw_payload"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([1, 2], "returned list"),
        ({1, 2}, "returned set"),
        ("text", "returned str"),
        (True, "returned bool"),
        ({"x": float("nan")}, "not JSON"),
        ({"x": float("inf")}, "not JSON"),
        ({"x": {1}}, "not JSON"),
        ({"x": datetime.now}, "not JSON"),
        ({(1, 2): "x"}, "not JSON"),
    ],
)
async def test_a_result_that_is_no_json_object_fails_the_email_at_once(
    pool: Pool, result: object, said: str
) -> None:
    async def handle(email: IncomingEmail) -> object:
        return result

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "failed"
    assert said in row["processing_error"]
    assert errors_of(row) == [(1, row["processing_error"])]


async def test_a_permanent_failure_fails_the_email_at_once(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise PermanentFailure("the customer does not exist")

    claimer = make_claimer(pool, handle)
    email_id = await store(pool)
    await one_email.process(claimer, email_id)
    row = await read(pool, email_id)
    assert row["processing_status"] == "failed"
    assert row["processing_error"] == "the customer does not exist"
    assert errors_of(row) == [(1, "the customer does not exist")]
    assert row["completed_at"] is not None
    assert row["next_attempt_at"] is row["lease_expires_at"] is None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (90, timedelta(seconds=90)),
        (0.5, timedelta(seconds=0.5)),
        (timedelta(minutes=7), timedelta(minutes=7)),
        (0, timedelta(0)),
        (-30, timedelta(0)),
        (timedelta.max, LONGEST_PAUSE),
    ],
)
async def test_a_handler_can_name_the_pause_before_its_retry(
    pool: Pool, after: float | timedelta, expected: timedelta
) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise Retry("the system is busy", after=after)

    email_id = await store(pool)
    row = await process(pool, handle, email_id)
    assert row["processing_status"] == "queued"
    assert row["queued_at"] is None
    assert row["next_attempt_at"] - row["updated_at"] == expected
    assert row["retry_count"] == 1
    assert errors_of(row) == [(1, "the system is busy")]


async def test_a_retry_without_a_pause_takes_the_configured_one(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise Retry

    email_id = await store(pool)
    row = await process(pool, handle, email_id, min_backoff_seconds=100, max_backoff_seconds=1000)
    assert 75 <= (row["next_attempt_at"] - row["updated_at"]).total_seconds() <= 125
    assert errors_of(row) == [(1, "the handler asked for a retry")]


@pytest.mark.parametrize("after", ["soon", float("nan"), float("inf"), 1e300])
async def test_a_pause_that_is_none_is_a_failed_attempt(pool: Pool, after: Any) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise Retry("busy", after=after)

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "queued"
    ((attempt, error),) = errors_of(row)
    assert attempt == 1
    assert error.startswith(("TypeError", "ValueError", "OverflowError"))


async def test_an_error_is_retried_with_doubling_pauses_until_the_last_attempt(
    pool: Pool,
) -> None:
    attempts = 0

    async def handle(email: IncomingEmail) -> None:
        nonlocal attempts
        attempts += 1
        raise ConnectionError(f"attempt {attempts}")

    claimer = make_claimer(
        pool, handle, max_retries=4, min_backoff_seconds=10, max_backoff_seconds=35
    )
    email_id = await store(pool)
    bounds = [(7.5, 12.5), (15, 25), (26.25, 35), (26.25, 35)]
    for retries, (shortest, longest) in enumerate(bounds, start=1):
        await one_email.process(claimer, email_id)
        row = await read(pool, email_id)
        assert row["processing_status"] == "queued"
        assert row["retry_count"] == retries
        assert row["completed_at"] is row["processing_error"] is None
        pause = (row["next_attempt_at"] - row["updated_at"]).total_seconds()
        assert shortest <= pause <= longest
        # Before its time a message does nothing.
        await one_email.process(claimer, email_id)
        assert await read(pool, email_id) == row
        await pool.execute("UPDATE incoming_emails SET next_attempt_at = now()")
    await one_email.process(claimer, email_id)
    row = await read(pool, email_id)
    assert row["processing_status"] == "failed"
    assert row["processing_error"] == "ConnectionError: attempt 5"
    assert (row["retry_count"], row["claims"], attempts) == (4, 5, 5)
    assert errors_of(row) == [(n, f"ConnectionError: attempt {n}") for n in range(1, 6)]


async def test_without_retries_the_first_error_is_the_last(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise Retry("busy", after=1)

    row = await process(pool, handle, await store(pool), max_retries=0)
    assert row["processing_status"] == "failed"
    assert row["processing_error"] == "busy"


async def test_an_email_completes_after_failed_attempts_and_keeps_their_errors(
    pool: Pool,
) -> None:
    async def handle(email: IncomingEmail) -> dict[str, int]:
        if not email.attempt_errors:
            raise LookupError
        return {"earlier": len(email.attempt_errors)}

    email_id = await store(pool)
    await process(pool, handle, email_id)
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = now()")
    row = await process(pool, handle, email_id)
    assert row["processing_status"] == "completed"
    assert json.loads(row["extracted_data"]) == {"earlier": 1}
    assert row["processing_error"] is None
    assert errors_of(row) == [(1, "LookupError")]


# The longest that the settings take.
A_YEAR_SECONDS = 31_536_000.0


@given(
    shortest=st.floats(0.01, A_YEAR_SECONDS),
    factor=st.floats(1, 1e6),
    retry_count=st.integers(0, 2**31 - 1),
)
def test_every_pause_lies_within_the_configured_bounds(
    shortest: float, factor: float, retry_count: int
) -> None:
    longest = min(shortest * factor, A_YEAR_SECONDS)
    configured = make_settings(min_backoff_seconds=shortest, max_backoff_seconds=longest)
    pause = backoff(configured, retry_count).total_seconds()
    assert 0.74 * shortest <= pause <= longest * 1.01


class Unshowable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a\x00b \ud800 ä"), "ValueError: ab � ä"),
        (ValueError("\x00"), "ValueError: "),
        (Unshowable(), "Unshowable: it cannot be shown"),
        (SystemExit(3), "RuntimeError: the handler raised SystemExit(3)"),
        (KeyboardInterrupt(), "RuntimeError: the handler raised KeyboardInterrupt()"),
        (asyncio.CancelledError(), "the handler was cancelled"),
        (GeneratorExit(), "GeneratorExit"),
        (TimeoutError(), "TimeoutError"),
        (dramatiq.Retry(delay=5), "Retry"),
        (ExceptionGroup("two", [ValueError("x"), KeyError("y")]), "ExceptionGroup: two"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_a_handler_raises_is_a_failed_attempt_that_says_so(
    pool: Pool, error: BaseException, said: str
) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise error

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "queued"
    ((attempt, kept),) = errors_of(row)
    assert attempt == 1
    assert kept.startswith(said)
    assert row["lease_expires_at"] is None


async def test_a_long_error_is_kept_in_part(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise ValueError("x" * 1_000_000)

    row = await process(pool, handle, await store(pool), max_retries=0)
    assert row["processing_error"].startswith("ValueError: xxx")
    assert len(row["processing_error"]) == LONGEST_ERROR


async def test_a_permanent_failure_without_words_says_something(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> None:
        raise PermanentFailure

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "failed"
    assert row["processing_error"]


async def test_a_handler_over_its_time_is_cancelled_and_its_attempt_failed(pool: Pool) -> None:
    ends: list[str] = []

    async def handle(email: IncomingEmail) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    held = HeldClaims()
    email_id = await store(pool)
    await one_email.process(
        make_claimer(pool, handle, held, handler_timeout_seconds=0.05), email_id
    )
    row = await read(pool, email_id)
    assert row["processing_status"] == "queued"
    assert errors_of(row) == [(1, "the handler did not finish within 0.05 seconds")]
    assert ends == ["cancelled"]
    assert held.all() == []


async def test_a_handler_that_returns_after_its_cancellation_has_failed_all_the_same(
    pool: Pool,
) -> None:
    async def handle(email: IncomingEmail) -> dict[str, bool]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return {"late": True}

    row = await process(
        pool, handle, await store(pool), handler_timeout_seconds=0.05, max_retries=0
    )
    assert row["processing_status"] == "failed"
    assert row["extracted_data"] is None


async def test_a_handler_that_ignores_its_cancellation_keeps_its_claim_while_it_runs(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "CANCEL_SECONDS", 0.05)
    may_end = asyncio.Event()
    was_cancelled: list[bool] = []

    async def handle(email: IncomingEmail) -> dict[str, bool]:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                was_cancelled.append(True)
        return {"late": True}

    held = HeldClaims()
    email_id = await store(pool)
    claimer = make_claimer(pool, handle, held, handler_timeout_seconds=0.05)
    processing = asyncio.create_task(one_email.process(claimer, email_id))
    async with asyncio.timeout(60):
        while not was_cancelled:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await asyncio.wait({processing}, timeout=0.5)
        assert not processing.done()
        assert (await read(pool, email_id))["processing_status"] == "processing"
        assert len(held.all()) == 1
        may_end.set()
        await processing
    row = await read(pool, email_id)
    assert row["processing_status"] == "queued"
    assert errors_of(row) == [(1, "the handler did not finish within 0.05 seconds")]
    assert held.all() == []


@pytest.mark.parametrize("max_lost_claims", [1, 3])
async def test_an_email_whose_workers_vanish_again_and_again_fails_unhandled(
    pool: Pool, max_lost_claims: int
) -> None:
    calls = Calls()
    email_id = await store(pool)
    await lose_claims(pool, email_id, max_lost_claims)
    row = await process(pool, calls.handle, email_id, max_lost_claims=max_lost_claims)
    assert row["processing_status"] == "failed"
    assert f"(times: {max_lost_claims})" in row["processing_error"]
    assert calls.emails == []


async def test_an_email_whose_workers_vanished_less_often_is_handled(pool: Pool) -> None:
    calls = Calls()
    email_id = await store(pool)
    await lose_claims(pool, email_id, 2)
    row = await process(pool, calls.handle, email_id, max_lost_claims=3)
    assert row["processing_status"] == "completed"
    assert row["claims"] == 3
    assert len(calls.emails) == 1


async def test_of_the_emails_whose_workers_vanished_one_is_handled_at_a_time(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer_module, "SUSPECT_PAUSE", timedelta(seconds=0.3))
    running: list[UUID] = []
    may_end = asyncio.Event()

    async def handle(email: IncomingEmail) -> None:
        running.append(email.id)
        await may_end.wait()

    claimer = make_claimer(pool, handle)
    first, second, good = [await store(pool) for _ in range(3)]
    await lose_claims(pool, first, 1)
    await lose_claims(pool, second, 1)
    await keeping.rescue_expired(pool, limit=2)
    await dispatching.queue(pool, limit=2, depth=2)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(one_email.process(claimer, first))
        while running != [first]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        # It comes again later, and meanwhile has no claim to lose.
        await one_email.process(claimer, second)
        row = await read(pool, second)
        assert (row["processing_status"], row["claims"], row["queued_at"]) == ("queued", 1, None)
        assert row["next_attempt_at"] - row["updated_at"] == timedelta(seconds=0.3)
        group.create_task(one_email.process(claimer, good))
        while running != [first, good]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        may_end.set()
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = now()")
    await one_email.process(claimer, second)
    assert await statuses(pool) == {"completed": 3}
    assert (await read(pool, second))["claims"] == 2


async def test_an_operators_retry_gives_a_poison_email_a_fresh_start(pool: Pool) -> None:
    calls = Calls()
    email_id = await store(pool)
    await lose_claims(pool, email_id, 3)
    await process(pool, calls.handle, email_id)
    assert await operators.retry(pool, email_id, by="erika")
    row = await process(pool, calls.handle, email_id)
    assert row["processing_status"] == "completed"
    assert [error for _, error in errors_of(row)][-1] == "retried by erika"


async def test_a_message_without_work_does_nothing(pool: Pool) -> None:
    calls = Calls()
    later = await pool.fetchval("SELECT now() + interval '1 hour'")
    rows = [
        {"processing_status": "completed"},
        {"processing_status": "failed", "processing_error": "x"},
        {"processing_status": "processing", "started_at": later, "lease_expires_at": later},
        {"processing_status": "queued", "queued_at": later, "next_attempt_at": later},
    ]
    for columns in rows:
        email_id = await store(pool, **columns)
        before = await read(pool, email_id)
        assert await process(pool, calls.handle, email_id) == before
    await one_email.process(make_claimer(pool, calls.handle), uuid4())
    assert calls.emails == []


async def test_a_message_that_comes_twice_is_handled_once(pool: Pool) -> None:
    calls = Calls()
    claimer = make_claimer(pool, calls.handle)
    email_id = await store(pool)
    await asyncio.gather(*(one_email.process(claimer, email_id) for _ in range(5)))
    await one_email.process(claimer, email_id)
    assert len(calls.emails) == 1
    assert (await read(pool, email_id))["claims"] == 1


@pytest.mark.parametrize("ending", ["completes", "fails", "fails for good", "runs out of time"])
async def test_a_worker_that_lost_its_claim_meanwhile_overwrites_nothing(
    pool: Pool, ending: str
) -> None:
    others: list[Row] = []

    async def handle(email: IncomingEmail) -> dict[str, str]:
        await pool.execute("UPDATE incoming_emails SET lease_expires_at = now() - interval '1 s'")
        others.append(await process(pool, Calls().handle, email.id))
        match ending:
            case "completes":
                email.cleaned_body = "mine"
                return {"by": "me"}
            case "fails":
                raise ValueError("mine")
            case "fails for good":
                raise PermanentFailure("mine")
        await asyncio.Event().wait()
        return {}

    email_id = await store(pool)
    seconds = 3 if ending == "runs out of time" else 60
    await one_email.process(make_claimer(pool, handle, handler_timeout_seconds=seconds), email_id)
    assert others[0]["processing_status"] == "completed"
    assert await read(pool, email_id) == others[0]


async def test_a_handler_whose_claim_was_lost_is_cancelled_and_others_go_on(pool: Pool) -> None:
    held = HeldClaims()
    is_running = asyncio.Semaphore(0)
    may_end = asyncio.Event()
    cancelled: list[UUID] = []

    async def handle(email: IncomingEmail) -> None:
        is_running.release()
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            cancelled.append(email.id)
            raise

    claimer = make_claimer(pool, handle, held)
    stolen, kept = await store(pool), await store(pool)
    async with asyncio.TaskGroup() as group:
        loser = group.create_task(one_email.process(claimer, stolen))
        group.create_task(one_email.process(claimer, kept))
        await is_running.acquire()
        await is_running.acquire()
        await pool.execute(
            "UPDATE incoming_emails SET lease_expires_at = now() - interval '1 s' WHERE id = $1",
            stolen,
        )
        thief = await one_email.claim(pool, stolen, lease=LEASE, worker="a worker")
        assert isinstance(thief, tuple)
        before = await read(pool, stolen)
        lease_before = (await read(pool, kept))["lease_expires_at"]
        await extend_once(pool, held, timedelta(hours=1))
        await loser
        assert cancelled == [stolen]
        assert await read(pool, stolen) == before
        assert (await read(pool, kept))["lease_expires_at"] > lease_before
        may_end.set()
    assert (await read(pool, kept))["processing_status"] == "completed"


async def test_what_postgresql_does_not_take_is_left_out_of_the_cleaned_body(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> dict[str, str]:
        email.cleaned_body = "a\x00b \ud800 ä"
        return {"a\x00": "b\x00 \ud800"}

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "completed"
    assert row["cleaned_body"] == "ab � ä"
    assert json.loads(row["extracted_data"]) == {"a": "b �"}


@pytest.mark.parametrize("body", [b"bytes", 5, ["text"]])
async def test_a_cleaned_body_that_is_no_text_fails_the_email_at_once(
    pool: Pool, body: Any
) -> None:
    async def handle(email: IncomingEmail) -> None:
        email.cleaned_body = body

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "failed"
    assert "cleaned_body" in row["processing_error"]
    assert f"not {type(body).__name__}" in row["processing_error"]


async def test_connections_lost_while_a_handler_runs_cost_nothing(
    pool: Pool, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    async def handle(email: IncomingEmail) -> dict[str, bool]:
        await asyncio.to_thread(end_other_connections, connection)
        return {"done": True}

    row = await process(pool, handle, await store(pool))
    assert row["processing_status"] == "completed"
    assert (row["claims"], errors_of(row)) == (1, [])


def end_other_connections(connection: "psycopg.Connection[dict[str, object]]") -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_a_worker_goes_on_after_a_newer_version_has_migrated(pool: Pool) -> None:
    calls = Calls()
    claimer = make_claimer(pool, calls.handle)
    before = await store(pool)
    await one_email.process(claimer, before)
    await pool.execute("ALTER TABLE incoming_emails ADD COLUMN of_the_future integer DEFAULT 7")
    after = await store(pool)
    await one_email.process(claimer, after)
    assert (await read(pool, after))["processing_status"] == "completed"
    assert [email.id for email in calls.emails] == [before, after]


# The built-in handler.


async def handled(**columns: Any) -> tuple[IncomingEmail, Mapping[str, Any]]:
    email = IncomingEmail(**columns)
    return email, await extract_text.handle(email)


@pytest.mark.parametrize(
    ("columns", "body", "source"),
    [
        ({"raw_body_text": " Guten Tag \n"}, "Guten Tag", "text"),
        ({"raw_body_text": "Text", "raw_body_html": "<p>HTML</p>"}, "Text", "text"),
        ({"raw_body_text": "1 < 2 & <b>"}, "1 < 2 & <b>", "text"),
        ({"raw_body_html": "<p>Guten</p><p>Tag &amp; auf&nbsp;Wiedersehen</p>"}, None, "html"),
        ({"raw_body_text": " \n", "raw_body_html": "<i>HTML</i>"}, "HTML", "html"),
        ({"raw_body_html": "Guten Tag,\n\nhier & da\n-- \nE."}, None, "html"),
        ({"raw_body_html": "<style>p {}</style><script>x()</script><!-- y -->z"}, "z", "html"),
        ({}, "", None),
        ({"raw_body_text": "", "raw_body_html": ""}, "", None),
        ({"raw_body_html": " "}, "", None),
        ({"raw_body_html": "<p></p>"}, "", None),
        ({"raw_body_html": "<"}, None, "html"),
    ],
)
async def test_readable_text_is_taken_from_the_text_or_else_from_the_html(
    columns: dict[str, str], body: str | None, source: str | None
) -> None:
    email, result = await handled(**columns)
    expected = {
        "<p>Guten</p><p>Tag &amp; auf&nbsp;Wiedersehen</p>": "Guten\n\nTag & auf Wiedersehen",
        "Guten Tag,\n\nhier & da\n-- \nE.": "Guten Tag,\n\nhier & da",
        "<": "<",
    }
    if body is None:
        body = expected[columns["raw_body_html"]]
    assert email.cleaned_body == body
    told = {"text_source": source, "characters": len(body), "attachments": 0}
    assert {name: result[name] for name in told} == told


async def test_attachments_are_counted(pool: Pool) -> None:
    email_id = await store(
        pool, raw_body_html="<p>Hallo</p>", attachment_urls='[{"url": "a"}, {"url": "b"}]'
    )
    row = await process(pool, extract_text.handle, email_id)
    assert json.loads(row["extracted_data"])["attachments"] == 2


HOSTILE = [
    "<?xml version='1.0' encoding='utf-16'?><html><p>Hallo</p></html>",
    "<!DOCTYPE html [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><p>&b;</p>",
    "<!-- only a comment -->",
    "<?php echo 1 ?>",
    "<![CDATA[ x ]]>",
    "<p>Hallo<!-- ",
    "<a href='javascript:alert(1)'>x</a><svg/onload=1>",
    "<html><html><body><body><p>zwei</p></body></html></html>",
    "&#0;&#xD800;&#x110000;<p>&#1;</p>",
    "<p \x0b\x0c\x1f a=\x01>\x02\x7f\ufffe\uffff</p>",
    "<frameset><frame src=x></frameset><noframes>x</noframes>",
    "<!---->",
    "</p></p></div>",
    "<template><p>x</template>",
]
FRAGMENTS = st.sampled_from(
    [
        *HOSTILE,
        *("<p>", "</p>", "<table>", "<td>", "<br/>", "<!--", "-->", "<?", "?>", "<![CDATA["),
        *("<script>", "</script>", "<style>", "<title>", "<textarea>", "<math>", "<svg>", "<plain"),
        *("&amp;", "&#0;", "&", "<", ">", '"', "'", "=", "/", "\r\n", "\u2028", "\ufeff", "ä"),
    ]
)
HTML = st.lists(FRAGMENTS | st.text(max_size=8), max_size=30).map("".join)


@settings(max_examples=200)
@given(html=HTML)
def test_no_html_is_too_hostile_to_end_in_storable_text(html: str) -> None:
    # What PostgreSQL can hold comes in: no NUL, no lone surrogates.
    html = fit_text(html)
    email, result = asyncio.run(handled(raw_body_html=html))
    assert isinstance(email.cleaned_body, str)
    assert fit_text(email.cleaned_body) == email.cleaned_body
    assert result["characters"] == len(email.cleaned_body)
    assert result_to_json(result) is not None


async def test_html_that_is_nested_beyond_measure_is_read(pool: Pool) -> None:
    html = "<div>" * 200_000 + "tief" + "</div>" * 200_000
    row = await process(pool, extract_text.handle, await store(pool, raw_body_html=html))
    assert (row["processing_status"], row["cleaned_body"]) == ("completed", "tief")


async def test_a_large_html_body_is_read_whole(pool: Pool) -> None:
    html = "<p>" + "<b>Päckchen</b> <i>ist</i> " * 40_000 + "Ende</p>"
    row = await process(pool, extract_text.handle, await store(pool, raw_body_html=html))
    assert row["processing_status"] == "completed"
    assert row["cleaned_body"].endswith("Päckchen ist Ende")
    assert row["cleaned_body"].count("Päckchen") == 40_000


async def test_other_emails_go_on_while_html_is_parsed() -> None:
    hostile = "<div><a href=x>" * 130_000
    held = [asyncio.create_task(handled(raw_body_html=hostile)) for _ in range(6)]
    await asyncio.sleep(0)
    usual, _ = await handled(raw_body_html="<p>Guten Tag</p>" + "<br>" * 3_000 + "Ende")
    # Of six that take a second each, the last is not read yet, and the loop was free meanwhile.
    assert usual.cleaned_body.startswith("Guten Tag")
    assert not held[-1].done()
    for task in held:
        task.cancel()
    ended = await asyncio.gather(*held, return_exceptions=True)
    assert any(isinstance(end, asyncio.CancelledError) for end in ended)


@pytest.mark.parametrize("character", ["\x0b", "\x1f", "\uffff", "&#1;", "&#x1F;", "&#11;"])
async def test_a_control_character_after_a_comment_costs_no_text(character: str) -> None:
    html = f"<p>Guten Tag<!--[if mso]> x <![endif]-->{character} Frau Muster</p>"
    email, _ = await handled(raw_body_html=html)
    assert email.cleaned_body == "Guten Tag Frau Muster"


# What a handler returned, as JSON.

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON))
def test_a_json_object_is_kept_as_it_is(value: dict[str, Any]) -> None:
    text = result_to_json(value)
    assert text is not None
    assert json.loads(text) == fit_json(value)


@given(st.dictionaries(st.text(st.characters()), st.recursive(
    st.text(st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)))  # fmt: skip
@pytest.mark.long
def test_every_key_and_text_of_a_result_is_one_that_every_reader_takes(value: Any) -> None:
    text = result_to_json(value)
    assert text is not None
    assert "\\u0000" not in text
    assert json.loads(text.encode().decode()) == fit_json(value)
    json.dumps(json.loads(text), ensure_ascii=False).encode()


def test_a_result_that_nests_without_end_is_cut() -> None:
    deep: Any = "bottom"
    for _ in range(400):
        deep = [deep]
    text = result_to_json({"deep": deep, "kept": 1})
    assert text is not None
    assert text.count("[") <= DEEPEST_NESTING
    assert json.loads(text)["kept"] == 1


def test_a_mapping_that_is_no_dict_is_taken_and_none_is_nothing() -> None:
    assert result_to_json(MappingProxyType({"a": 1})) == '{"a": 1}'
    assert result_to_json({}) == "{}"
    assert result_to_json(None) is None


@given(st.one_of(st.lists(JSON), st.text(), st.integers(), st.floats(), st.booleans()))
def test_what_is_no_mapping_is_refused_by_the_name_of_its_type(value: object) -> None:
    with pytest.raises(PermanentFailure, match=f"returned {type(value).__name__}: "):
        result_to_json(value)


@example([])
@given(st.lists(st.sampled_from([0, 1])))
def test_a_result_that_holds_itself_or_is_bottomless_is_refused(steps: list[int]) -> None:
    loop: dict[str, Any] = {}
    inner: Any = loop
    for step in steps:
        inner = [inner] if step else {"in": inner}
    loop["loop"] = inner
    with pytest.raises(PermanentFailure, match="not JSON"):
        result_to_json(loop)
    deep: Any = {}
    for _ in range(5_000):
        deep = {"deeper": deep}
    with pytest.raises(PermanentFailure, match="not JSON"):
        result_to_json(deep)


async def test_what_was_mended_of_a_payload_stays_with_the_result(pool: Pool) -> None:
    async def handle(email: IncomingEmail) -> dict[str, Any]:
        return {"crm_id": 7}

    async def returns_nothing(email: IncomingEmail) -> None:
        pass

    mended = '{"repaired": ["quotes"]}'
    row = await process(pool, handle, await store(pool, extracted_data=mended))
    assert json.loads(row["extracted_data"]) == {"repaired": ["quotes"], "crm_id": 7}
    row = await process(pool, returns_nothing, await store(pool, extracted_data=mended))
    assert json.loads(row["extracted_data"]) == {"repaired": ["quotes"]}


async def test_no_handler_is_asked_about_an_email_that_nobody_can_read(pool: Pool) -> None:
    """It fails again with the same reason, as often as an operator retries it."""
    calls = Calls()
    columns = {"extracted_data": '{"unreadable": "the body is not JSON"}', "from_email": ""}
    row = await process(pool, calls.handle, await store(pool, **columns))
    assert (row["processing_status"], row["retry_count"]) == ("failed", 0)
    assert row["processing_error"] == "the body is not JSON"
    assert calls.emails == []


# The Dispatcher.


def send_to(messages: list[UUID]) -> Any:
    return messages.extend


async def statuses(pool: Pool) -> dict[str, int]:
    found = await pool.fetch(
        "SELECT processing_status, count(*) FROM incoming_emails GROUP BY processing_status"
    )
    return {row[0]: row[1] for row in found}


async def test_batch_by_batch_all_emails_go_to_the_broker(pool: Pool) -> None:
    ids = [await store(pool) for _ in range(BATCH + 3)]
    sent: list[UUID] = []
    dispatcher = Dispatcher(pool, send=send_to(sent), depth=1_000, concurrency=1)
    assert await dispatcher.dispatch_batch() is True
    assert sent == ids[:BATCH]
    # One that was not empty is followed by another look.
    assert await dispatcher.dispatch_batch() is True
    assert await dispatcher.dispatch_batch() is False
    assert sent == ids
    assert await statuses(pool) == {"queued": BATCH + 3}


@contextlib.asynccontextmanager
async def running(dispatcher: Dispatcher) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(dispatcher.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_notification_wakes_the_dispatcher_before_its_next_look(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "POLL_SECONDS", 3_600.0)
    sent: asyncio.Queue[UUID] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    first = await store(pool)
    dispatcher = Dispatcher(
        pool,
        send=one_email.each(lambda sent_id: loop.call_soon_threadsafe(sent.put_nowait, sent_id)),
        depth=10,
        concurrency=1,
    )
    dispatcher.be_first(True)
    async with asyncio.timeout(60), running(dispatcher):
        assert await sent.get() == first
        second = await store(pool)
        await pool.execute(f"NOTIFY {CHANNEL}")
        assert await sent.get() == second


async def test_a_lost_notification_is_made_up_for_by_looking(pool: Pool) -> None:
    sent: asyncio.Queue[UUID] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(
        pool,
        send=one_email.each(lambda sent_id: loop.call_soon_threadsafe(sent.put_nowait, sent_id)),
        depth=10,
        concurrency=1,
    )
    async with asyncio.timeout(60), running(dispatcher):
        for _ in range(2):
            email_id = await store(pool)
            assert await sent.get() == email_id


async def test_a_dispatcher_whose_listening_connection_ends_says_so(
    pool: Pool, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    is_sent = asyncio.Event()
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(
        pool,
        send=one_email.each(lambda _: loop.call_soon_threadsafe(is_sent.set) and None),
        depth=10,
        concurrency=1,
    )
    dispatcher.be_first(True)
    await store(pool)
    async with asyncio.timeout(60), running(dispatcher) as task:
        # It listens before it looks for the first time.
        await is_sent.wait()
        await asyncio.to_thread(end_other_connections, connection)
        await asyncio.wait({task})
        assert isinstance(task.exception(), (*DATABASE_AWAY, asyncpg.PostgresError))


# The Rescuer.


async def test_the_rescuer_brings_back_what_is_stuck_and_nothing_else(pool: Pool) -> None:
    moment = await pool.fetchval("SELECT now()")
    long_ago, later = moment - timedelta(hours=1), moment + timedelta(hours=1)
    stuck = {
        await store(
            pool, processing_status="processing", started_at=long_ago, lease_expires_at=long_ago
        ),
        await store(pool, processing_status="queued", queued_at=long_ago),
    }
    for columns in (
        {"processing_status": "processing", "started_at": moment, "lease_expires_at": later},
        {"processing_status": "queued", "queued_at": moment},
        {"processing_status": "queued", "queued_at": None, "next_attempt_at": later},
        {"processing_status": "received"},
        {"processing_status": "completed"},
        {"processing_status": "failed"},
    ):
        await store(pool, **columns)
    assert await one_email.rescue(pool) == 2
    assert await one_email.rescue(pool) == 0
    sent: list[UUID] = []
    dispatcher = Dispatcher(pool, send=send_to(sent), depth=10, concurrency=1)
    await dispatcher.dispatch_batch()
    assert stuck < set(sent)
    for email_id in sent:
        row = await process(pool, Calls().handle, email_id)
        assert row["processing_status"] == "completed"


async def test_of_several_rescuers_at_once_each_email_is_brought_back_by_one(pool: Pool) -> None:
    long_ago = await pool.fetchval("SELECT now() - interval '1 hour'")
    for _ in range(20):
        await store(
            pool, processing_status="processing", started_at=long_ago, lease_expires_at=long_ago
        )
    rescued = await asyncio.gather(*(one_email.rescue(pool) for _ in range(5)))
    assert sum(rescued) == 20
    assert await statuses(pool) == {"queued": 20}


@pytest.mark.parametrize("depth", [100, 300, 3_000, 100_000])
async def test_text_is_found_however_deep_a_reply_chain_nests(depth: int) -> None:
    html = f"<p>Vorne</p>{'<blockquote>' * depth}Mitte{'</blockquote>' * depth}<p>Hinten</p>"
    email = IncomingEmail(raw_body_html=html)
    await extract_text.handle(email)
    assert email.cleaned_body.split() == ["Vorne", "Mitte", "Hinten"]
