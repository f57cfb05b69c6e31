"""The Intake and its group commit on a real PostgreSQL: what is stored, once, and what is not."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import attrs
import pytest
from structlog.testing import capture_logs
from support import SECRET, email, free_port, make_settings

from app.database.engine import MailroomEngine
from app.intake import writer
from app.intake.admission import Admission
from app.intake.email_row import EmailRow, make_row
from app.intake.erasure_rules import erasures_of
from app.intake.intake import Intake
from app.intake.json_body import UnreadableBodyError, read_json_object
from app.intake.payload import InvalidPayloadError, check_payload
from app.intake.quarantine import Quarantine
from app.intake.refusals import PAGE_BYTES, Refusal, refusals
from app.intake.row_writer import NotStoredError
from app.intake.signature import SignatureRefusedError, sign
from app.intake.writer import FIND_FIRST, INSERT_UNLESS_IN_QUESTION, EmailWriter
from app.models.quarantined_webhook import RefusalReason
from app.telemetry.request_id import uuid7

WAIT_SECONDS = 60
MakeIntake = Callable[..., Intake]
MakeCommit = Callable[..., EmailWriter]


@pytest.fixture
async def make_commit(pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[MakeCommit]:
    """Makes group commits, and closes them after the test."""
    made: list[EmailWriter] = []

    def make(pool: "asyncpg.Pool[asyncpg.Record]" = pool, **changes: Any) -> EmailWriter:
        options = {"batch_rows": 256, "max_waiting": 1_000, "deadline_seconds": 30.0, **changes}
        made.append(EmailWriter(pool, **options))
        return made[-1]

    yield make
    for commit in made:
        await commit.close()


@pytest.fixture
async def make_intake(pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[MakeIntake]:
    """Makes Intakes, and closes them after the test."""
    made: list[Intake] = []

    def make(pool: "asyncpg.Pool[asyncpg.Record]" = pool, **settings: Any) -> Intake:
        made.append(Intake(make_settings(**settings), pool))
        return made[-1]

    yield make
    for intake in made:
        await intake.close()


@pytest.fixture
async def commit(make_commit: MakeCommit) -> EmailWriter:
    return make_commit()


@pytest.fixture
async def intake(make_intake: MakeIntake) -> Intake:
    return make_intake()


async def admit(
    intake: Intake,
    payload: dict[str, Any] | bytes,
    *,
    invocation_id: str | None = None,
    timestamp: str | None = None,
) -> Admission:
    """Admit a webhook as Zendesk signs it."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    timestamp = timestamp or datetime.now(UTC).isoformat()
    return await intake.admit(
        body,
        email_id=uuid7(),
        signature=sign(SECRET, timestamp, body),
        timestamp=timestamp,
        invocation_id=invocation_id,
    )


async def admit_unsigned(
    intake: Intake, payload: dict[str, Any], *, invocation_id: str | None = None
) -> Admission:
    return await intake.admit(
        json.dumps(payload).encode(),
        email_id=uuid7(),
        signature=None,
        timestamp=None,
        invocation_id=invocation_id,
    )


def make_email_row(**changes: Any) -> EmailRow:
    body = json.dumps(email()).encode()
    json_body = read_json_object(body)
    row = make_row(
        body,
        json_body,
        check_payload(json_body.fields),
        email_id=uuid7(),
        invocation_id=None,
        signature=None,
        now=datetime.now(UTC),
    )
    return attrs.evolve(row, **changes)


async def rows_in(pool: "asyncpg.Pool[asyncpg.Record]") -> list["asyncpg.Record"]:
    return await pool.fetch("SELECT * FROM incoming_emails ORDER BY created_at, id")


async def until(is_done: Callable[[], Awaitable[object]]) -> None:
    """Wait for a condition without holding up the event loop."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await is_done():  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def table_locked(pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[None]:
    """No INSERT comes to its end for the time of this block."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE incoming_emails IN ACCESS EXCLUSIVE MODE")
        yield


async def statements_wait(pool: "asyncpg.Pool[asyncpg.Record]", count: int = 1) -> bool:
    """Do as many statements wait for a lock in the test's database?"""
    waiting = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(waiting >= count)


@contextlib.contextmanager
def backends_frozen(pids: list[int]) -> Iterator[None]:
    """The server's processes of some connections stand still, as if the network had gone."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_an_email_is_stored_as_received(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    before = datetime.now(UTC)
    payload = email(body_text="Guten Tag 📦", received_at="2026-01-03T13:04:05Z")
    admission = await admit(intake, payload)
    (row,) = await rows_in(pool)
    assert not admission.is_duplicate
    assert row["id"] == admission.email_id
    assert row["zendesk_ticket_id"] == payload["ticket_id"]
    assert row["zendesk_webhook_id"] == payload["webhook_id"]
    assert row["from_email"] == payload["from_email"]
    assert row["from_name"] == payload["from_name"]
    assert row["subject"] == payload["subject"]
    assert row["raw_body_html"] == payload["body_html"]
    assert row["raw_body_text"] == payload["body_text"]
    assert row["received_at"] == datetime(2026, 1, 3, 13, 4, 5, tzinfo=UTC)
    assert before <= row["created_at"] <= datetime.now(UTC)
    assert row["processing_status"] == "received"
    assert row["sync_status"] == "not_applicable"
    assert (row["retry_count"], row["claims"], row["sync_retry_count"]) == (0, 0, 0)
    assert json.loads(row["attempt_errors"]) == []
    for column in (
        *("cleaned_body", "extracted_data", "processing_error", "processed_at", "started_at"),
        *("completed_at", "queued_at", "next_attempt_at", "lease_expires_at", "attachment_urls"),
    ):
        assert row[column] is None, column


async def test_the_payload_is_kept_whole_to_the_letter(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    body = (
        '{"ticket_id":1,  "unknown": {"deep": [1.50, null]}, "from_email":"a@example.com",'
        '\n"n": 1, "n": 2, "subject": "' + "ö" * 2_000 + '"}'
    )
    await admit(intake, body.encode())
    (row,) = await rows_in(pool)
    assert row["raw_payload"] == body
    assert row["subject"] == "ö" * 998


@pytest.mark.parametrize(
    "odd",
    [
        b'"\\ud800 half a character"',
        b'"a\nraw line break"',
        b'"a raw \x00 NUL"',
        b"1e400",
        b"9" * 5_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
async def test_an_odd_payload_is_kept_whole_too(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]", odd: bytes
) -> None:
    body = b'{"ticket_id": 1, "from_email": "a@example.com", "odd": %b}' % odd
    await admit(intake, body)
    (row,) = await rows_in(pool)
    assert json.loads(row["raw_payload"]) == body.decode().replace("\x00", "\\x00")
    assert row["from_email"] == "a@example.com"


async def test_sql_reads_what_is_stored_of_a_payload_with_nul(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    await admit(intake, email(attachments=[{"url": "https://example.org/1", "a\x00": "\x00"}]))
    await admit(intake, json.dumps(email()).encode().replace(b"Erika", b"Erika\x00"))
    read = await pool.fetch(
        "SELECT raw_payload::jsonb, raw_payload #>> '{}', attachment_urls::jsonb"
        " FROM incoming_emails"
    )
    assert len(read) == 2


async def test_nul_and_half_characters_do_not_keep_an_email_out(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    await admit(intake, email(subject="a\x00b", body_text="c\ud800d", webhook_id="\x00w"))
    (row,) = await rows_in(pool)
    assert (row["subject"], row["raw_body_text"]) == ("ab", "c\ufffdd")
    assert row["zendesk_webhook_id"] == "w"


async def test_attachments_become_attachment_urls(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    await admit(
        intake,
        email(
            attachments=[
                {
                    "url": "https://example.com/1",
                    "filename": "rechnung.pdf",
                    "content_type": "application/pdf",
                    "size": 12345,
                },
                None,
                {"url": " https://example.com/2 ", "size": "7", "inline": True, "nul\x00": "\x00"},
            ]
        ),
    )
    (row,) = await rows_in(pool)
    assert json.loads(row["attachment_urls"]) == [
        {
            "url": "https://example.com/1",
            "filename": "rechnung.pdf",
            "content_type": "application/pdf",
            "size": 12345,
        },
        {
            "url": "https://example.com/2",
            "filename": None,
            "content_type": None,
            "size": 7,
            "inline": True,
            "nul": "",
        },
    ]


@pytest.mark.parametrize("none", [None, "", []])
async def test_without_attachments_there_are_no_urls(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]", none: Any
) -> None:
    await admit(intake, email(attachments=none))
    (row,) = await rows_in(pool)
    assert row["attachment_urls"] is None


async def test_what_is_refused_leaves_no_row(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    with pytest.raises(SignatureRefusedError):
        await admit_unsigned(intake, email())
    with pytest.raises(UnreadableBodyError):
        await admit(intake, b"[1]")
    with pytest.raises(InvalidPayloadError):
        await admit(intake, {"ticket_id": 1})
    assert await rows_in(pool) == []


async def test_a_redelivery_is_a_duplicate_and_has_the_first_ones_id(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    payload = email()
    first = await admit(intake, payload, invocation_id="i1")
    again = await admit(intake, payload, invocation_id="i2")
    assert again == Admission(first.email_id, is_duplicate=True)
    assert len(await rows_in(pool)) == 1


async def test_a_redelivery_is_recognised_after_a_restart(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    payload = email()
    before = make_intake()
    first = await admit(before, payload)
    await before.close()
    assert await admit(make_intake(), payload) == Admission(first.email_id, is_duplicate=True)


async def test_the_invocation_id_finds_the_redelivery_of_a_payload_without_an_id(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    payload = email(webhook_id=None)
    first = await admit(intake, payload, invocation_id="i1")
    assert await admit(intake, payload, invocation_id="i1") == Admission(first.email_id, True)
    assert not (await admit(intake, payload, invocation_id="i2")).is_duplicate
    assert len(await rows_in(pool)) == 2


async def test_the_same_signed_bytes_are_a_duplicate_under_another_invocation_id(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    payload = email(webhook_id=None)
    timestamp = datetime.now(UTC).isoformat()
    first = await admit(intake, payload, invocation_id="i1", timestamp=timestamp)
    for invocation_id in ("i2", None):
        replayed = await admit(intake, payload, invocation_id=invocation_id, timestamp=timestamp)
        assert replayed == Admission(first.email_id, is_duplicate=True)
    assert len(await rows_in(pool)) == 1


async def test_two_equal_emails_without_id_and_signature_are_two(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    intake = make_intake(accept_unsigned=True)
    payload = email(webhook_id=None)
    admissions = await asyncio.gather(*(admit_unsigned(intake, payload) for _ in range(5)))
    assert len({admission.email_id for admission in admissions}) == 5
    assert not any(admission.is_duplicate for admission in admissions)
    assert len(await rows_in(pool)) == 5


async def test_a_wrong_signature_is_refused_even_where_none_is_needed(
    make_intake: MakeIntake,
) -> None:
    intake = make_intake(accept_unsigned=True)
    with pytest.raises(SignatureRefusedError):
        await intake.admit(
            json.dumps(email()).encode(),
            email_id=uuid7(),
            signature=sign("another secret", "2026", b""),
            timestamp=datetime.now(UTC).isoformat(),
            invocation_id=None,
        )


async def test_duplicates_inside_one_batch_are_found(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    intake = make_intake()
    payloads = [email() for _ in range(5)]
    async with table_locked(pool):
        tasks = [asyncio.create_task(admit(intake, email()))]
        await until(lambda: statements_wait(pool))
        tasks += [asyncio.create_task(admit(intake, payload)) for payload in payloads * 4]
    admissions = (await asyncio.gather(*tasks))[1:]
    for number in range(5):
        copies = admissions[number::5]
        assert len({copy.email_id for copy in copies}) == 1
        assert [copy.is_duplicate for copy in copies].count(False) == 1
    assert len(await rows_in(pool)) == 1 + 5


async def test_a_reused_webhook_id_is_stored_and_warned_about(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    with capture_logs() as logs:
        for _ in range(10):
            assert not (await admit(intake, email(webhook_id="the webhook's own"))).is_duplicate
    assert len(await rows_in(pool)) == 10
    warnings = [entry for entry in logs if entry["event"] == "webhook_id_reused"]
    assert [entry["times"] for entry in warnings] == [1, 2, 4, 8]
    assert {entry["log_level"] for entry in warnings} == {"warning"}


async def test_a_redelivery_is_no_reuse_of_its_webhook_id(intake: Intake) -> None:
    payload = email()
    with capture_logs() as logs:
        for _ in range(4):
            await admit(intake, payload)
    assert logs == []


async def test_emails_that_arrive_together_share_a_commit(
    commit: EmailWriter, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    async with table_locked(pool):
        tasks = [asyncio.create_task(commit.store(make_email_row()))]
        await until(lambda: statements_wait(pool))
        tasks += [asyncio.create_task(commit.store(make_email_row())) for _ in range(100)]
        # Each task takes its place in the line in its first step.
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    transactions = await pool.fetch(
        "SELECT count(*) FROM incoming_emails GROUP BY xmin::text ORDER BY 1"
    )
    assert [record["count"] for record in transactions] == [1, 100]


async def test_no_insert_holds_more_than_it_may(
    make_commit: MakeCommit, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    commit = make_commit(batch_rows=10)
    await asyncio.gather(*(commit.store(make_email_row()) for _ in range(95)))
    transactions = await pool.fetch("SELECT count(*) FROM incoming_emails GROUP BY xmin::text")
    assert max(record["count"] for record in transactions) <= 10
    assert sum(record["count"] for record in transactions) == 95


async def test_large_emails_go_beside_each_other_a_few_at_once_and_small_ones_beside_them(
    make_commit: MakeCommit, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    commit = make_commit(batch_bytes=50_000, full_at_once=2)
    large = [make_email_row(raw_body_text="x" * 30_000) for _ in range(6)]
    small = make_email_row()
    async with table_locked(pool):
        tasks = [asyncio.create_task(commit.store(row)) for row in large[:4]]
        await until(lambda: statements_wait(pool, 2))
        tasks.append(asyncio.create_task(commit.store(small)))
        await until(lambda: statements_wait(pool, 3))
        tasks += [asyncio.create_task(commit.store(row)) for row in large[4:]]
        # While it takes one that is not full, it begins no other.
        await asyncio.sleep(0.1)
        assert not await statements_wait(pool, 4)
    admissions = await asyncio.gather(*tasks)
    rows = [*large[:4], small, *large[4:]]
    assert [admission.email_id for admission in admissions] == [row.id for row in rows]
    transactions = await pool.fetch(
        "SELECT count(*) FROM incoming_emails GROUP BY xmin::text ORDER BY 1"
    )
    # Two fill a batch.
    assert [record["count"] for record in transactions] == [1, 2, 2, 2]


async def test_no_more_large_emails_go_at_once_than_may(
    make_commit: MakeCommit, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    commit = make_commit(batch_bytes=20_000, full_at_once=2)
    rows = [make_email_row(raw_body_text="x" * 30_000) for _ in range(7)]
    async with table_locked(pool):
        tasks = [asyncio.create_task(commit.store(row)) for row in rows]
        await until(lambda: statements_wait(pool, 2))
        await asyncio.sleep(0.1)
        assert not await statements_wait(pool, 3)
        # One is on its way, one was taken and waits for its turn, one stands in line.
        for gives_up in (tasks[0], tasks[2], tasks[6]):
            gives_up.cancel()
        closing = asyncio.create_task(commit.close())
        await asyncio.sleep(0.1)
        assert not closing.done()
    await closing
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    stored = {record["id"] for record in await rows_in(pool)}
    assert stored == {row.id for n, row in enumerate(rows) if n not in (2, 6)}
    for number, answer in enumerate(answers):
        if number in (0, 2, 6):
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == Admission(rows[number].id, is_duplicate=False)


async def test_each_is_told_of_its_own_email(
    commit: EmailWriter, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    rows = [make_email_row(subject=f"number {number}") for number in range(300)]
    admissions = await asyncio.gather(*(commit.store(row) for row in rows))
    assert [admission.email_id for admission in admissions] == [row.id for row in rows]
    stored = {record["id"]: record["subject"] for record in await rows_in(pool)}
    assert stored == {row.id: row.subject for row in rows}


async def test_two_processes_store_an_email_once(
    make_intake: MakeIntake, database_url: str, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    payloads = [email() for _ in range(60)]
    async with asyncpg.create_pool(database_url, min_size=0) as other_pool:
        one, other = make_intake(), make_intake(other_pool)
        admissions = await asyncio.gather(
            *(admit(one, payload) for payload in payloads),
            *(admit(other, payload) for payload in reversed(payloads)),
        )
        await other.close()
    assert len({admission.email_id for admission in admissions}) == 60
    assert [admission.is_duplicate for admission in admissions].count(False) == 60
    assert len(await rows_in(pool)) == 60


async def test_two_processes_that_get_the_same_emails_in_opposite_order_do_not_block_each_other(
    make_commit: MakeCommit, database_url: str, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    """Each would hold the first key that the other waits for, if both inserted in the order of
    arrival. The email in the middle holds both up until both are under way."""
    first, middle, last = (make_email_row(idempotency_key=uuid4().hex) for _ in range(3))

    def redelivery(*rows: EmailRow) -> list[EmailRow]:
        return [attrs.evolve(row, id=uuid4()) for row in rows]

    async with asyncpg.create_pool(database_url, min_size=0) as other_pool:
        one, other = make_commit(), make_commit(other_pool)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO incoming_emails "
                "(zendesk_ticket_id, from_email, subject, idempotency_key) "
                "VALUES ('1', 'a@example.com', '', $1)",
                middle.idempotency_key,
            )
            tasks = [asyncio.create_task(one.store(row)) for row in redelivery(first, middle, last)]
            await until(lambda: statements_wait(pool, 1))
            tasks += [
                asyncio.create_task(other.store(row)) for row in redelivery(last, middle, first)
            ]
            await until(lambda: statements_wait(pool, 2))
        admissions = await asyncio.gather(*tasks)
        await other.close()
    assert len({admission.email_id for admission in admissions}) == 3
    assert len(await rows_in(pool)) == 3


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError])
async def test_what_a_try_stored_before_it_failed_is_no_duplicate_of_itself(
    make_intake: MakeIntake,
    pool: "asyncpg.Pool[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
    error: type[asyncpg.PostgresError],
) -> None:
    errors = [error("of one of the others in the batch")]

    async def fail_once(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return await erasures_of(*arguments)

    intake = make_intake(accept_unsigned=True)
    first = email()
    await admit(intake, first)
    monkeypatch.setattr(writer, "erasures_of", fail_once)
    async with table_locked(pool):
        tasks = [asyncio.create_task(admit(intake, email()))]
        await until(lambda: statements_wait(pool))
        # One that was stored before has the batch look on, when the others are stored.
        tasks += [asyncio.create_task(admit(intake, payload)) for payload in (email(), first)]
        tasks.append(asyncio.create_task(admit_unsigned(intake, email(webhook_id=None))))
    _, keyed, again, keyless = await asyncio.gather(*tasks)
    assert errors == []
    assert [admission.is_duplicate for admission in (keyed, again, keyless)] == [False, True, False]
    assert len(await rows_in(pool)) == 4


async def test_a_row_that_the_database_refuses_fails_alone(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    await pool.execute(
        "ALTER TABLE incoming_emails ADD CONSTRAINT no_spam CHECK (subject <> 'spam')"
    )
    intake = make_intake()
    neighbours = [email() for _ in range(10)]
    payloads = [*neighbours[:5], email(subject="spam"), neighbours[0], *neighbours[5:]]
    async with table_locked(pool):
        tasks = [asyncio.create_task(admit(intake, email()))]
        await until(lambda: statements_wait(pool))
        tasks += [asyncio.create_task(admit(intake, payload)) for payload in payloads]
    answers = (await asyncio.gather(*tasks, return_exceptions=True))[1:]
    refused = answers.pop(5)
    assert isinstance(refused, NotStoredError)
    admissions = [answer for answer in answers if isinstance(answer, Admission)]
    assert len(admissions) == 11
    assert len({admission.email_id for admission in admissions}) == 10
    assert [admission.is_duplicate for admission in admissions].count(True) == 1
    assert len(await rows_in(pool)) == 1 + 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"zendesk_ticket_id": "1" * 65},
        {"raw_body_text": "a\x00b"},
        {"raw_body_text": "a\ud800b"},
        {"from_email": None},
        {"attachment_urls": "["},
    ],
)
async def test_whatever_is_wrong_with_a_row_its_neighbours_are_stored(
    commit: EmailWriter, pool: "asyncpg.Pool[asyncpg.Record]", wrong: dict[str, Any]
) -> None:
    rows = [make_email_row(), make_email_row(**wrong), make_email_row()]
    answers = await asyncio.gather(*(commit.store(row) for row in rows), return_exceptions=True)
    assert isinstance(answers[1], NotStoredError)
    assert {record["id"] for record in await rows_in(pool)} == {rows[0].id, rows[2].id}


async def test_a_refusal_that_the_database_refuses_fails_alone(
    pool: "asyncpg.Pool[asyncpg.Record]",
) -> None:
    quarantine = Quarantine(make_settings(), pool)
    arrived = [
        Refusal(
            id=uuid4(),
            reason=RefusalReason.INVALID,
            detail=detail,
            remote_address="192.0.2.7",
            headers={},
            body=b"{}",
        )
        for detail in ("first", "a\x00b", "last")
    ]
    answers = await asyncio.gather(
        *(quarantine.store(refusal) for refusal in arrived), return_exceptions=True
    )
    await quarantine.close()
    assert (answers[0], answers[2]) == (True, True)
    assert isinstance(answers[1], NotStoredError)
    kept = await pool.fetch("SELECT detail FROM quarantined_webhooks ORDER BY detail")
    assert [record["detail"] for record in kept] == ["first", "last"]


async def test_a_page_of_refusals_is_bounded_in_bytes(
    pool: "asyncpg.Pool[asyncpg.Record]",
) -> None:
    for size in (PAGE_BYTES // 2, PAGE_BYTES // 2, 1, 2 * PAGE_BYTES, 1):
        await pool.execute(
            "INSERT INTO quarantined_webhooks (reason, body, size)"
            " VALUES ('signature', convert_to(repeat('x', $1), 'UTF8'), $1)",
            size,
        )
    pages = [[refusal.size for refusal in page] async for page in refusals(pool)]
    assert pages == [[PAGE_BYTES // 2, PAGE_BYTES // 2], [1, 2 * PAGE_BYTES], [1]]


async def test_a_payload_nested_beyond_the_servers_stack_is_stored_as_a_json_string(
    make_intake: MakeIntake, database_url: str, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    body = b'{"ticket_id": 1, "from_email": "a@example.com", "deep": %b}' % (
        b"[" * 900 + b"]" * 900
    )
    async with asyncpg.create_pool(
        database_url, min_size=0, server_settings={"max_stack_depth": "100kB"}
    ) as shallow:
        with pytest.raises(asyncpg.StatementTooComplexError):
            await shallow.execute("SELECT $1::json", body.decode())
        intake = make_intake(shallow)
        await asyncio.gather(admit(intake, email()), admit(intake, body), admit(intake, email()))
        await intake.close()
    (text,) = [row["raw_payload"] for row in await rows_in(pool) if "deep" in row["raw_payload"]]
    assert json.loads(text) == body.decode()
    assert len(await rows_in(pool)) == 3


async def test_a_database_that_is_full_refuses_all_and_stores_them_when_it_is_mended(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    await pool.execute("""
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON incoming_emails
        FOR EACH ROW EXECUTE FUNCTION full_disk();
    """)
    payloads = [email() for _ in range(5)]
    answers = await asyncio.gather(
        *(admit(intake, payload) for payload in payloads), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [NotStoredError] * 5
    assert await rows_in(pool) == []
    await pool.execute("DROP TRIGGER full_disk ON incoming_emails")
    for payload in payloads:
        assert not (await admit(intake, payload)).is_duplicate


async def test_a_full_line_refuses_at_once_and_takes_again_when_it_moves(
    make_commit: MakeCommit, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    commit = make_commit(max_waiting=3)
    async with table_locked(pool):
        tasks = [asyncio.create_task(commit.store(make_email_row()))]
        await until(lambda: statements_wait(pool))
        tasks += [asyncio.create_task(commit.store(make_email_row())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(NotStoredError, match="send the webhook again"):
            await commit.store(make_email_row())
    await asyncio.gather(*tasks)
    await commit.store(make_email_row())
    assert len(await rows_in(pool)) == 5


async def test_a_database_that_is_away_is_told_and_what_comes_later_is_stored(
    intake: Intake, database_url: str, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    await admit(intake, email())
    name = await pool.fetchval("SELECT current_database()")
    elsewhere = await asyncpg.connect(database_url.replace(f"/{name}?", "/mailroom?"))
    try:
        await elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await elsewhere.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        payload = email()
        with pytest.raises(NotStoredError, match="send the webhook again"):
            await admit(intake, payload)
        await elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    finally:
        await elsewhere.close()
    assert not (await admit(intake, payload)).is_duplicate
    assert len(await rows_in(pool)) == 2


async def test_a_database_that_was_never_there_is_told(make_intake: MakeIntake) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/mailroom"
    async with asyncpg.create_pool(url, min_size=0) as nowhere:
        intake = make_intake(nowhere)
        answers = await asyncio.gather(
            *(admit(intake, email()) for _ in range(5)), return_exceptions=True
        )
        await intake.close()
    assert [type(answer) for answer in answers] == [NotStoredError] * 5


async def test_a_database_that_does_not_answer_in_time_is_told_and_nothing_is_stored_later(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    intake = make_intake(intake_deadline_seconds=0.3)
    payload = email()
    async with table_locked(pool):
        with pytest.raises(NotStoredError):
            await admit(intake, payload)
    assert await rows_in(pool) == []
    assert not (await admit(make_intake(), payload)).is_duplicate


async def test_a_connection_that_went_dead_does_not_hold_up_the_line(
    make_intake: MakeIntake, database_url: str, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    engine = MailroomEngine(make_settings(database_url=database_url))
    async with engine.make_pool(
        max_size=10, server_settings={"application_name": "goes dead"}
    ) as dying:
        intake = make_intake(dying, intake_deadline_seconds=3)
        await admit(intake, email())
        pids = [
            record["pid"]
            for record in await pool.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'goes dead'"
            )
        ]
        assert len(pids) == 1
        with backends_frozen(pids):
            with pytest.raises(NotStoredError):
                await admit(intake, email())
            async with asyncio.timeout(WAIT_SECONDS):
                assert not (await admit(intake, email())).is_duplicate
        await intake.close()


async def test_who_gave_up_waiting_before_the_insert_is_not_stored(
    commit: EmailWriter, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    stays, leaves, also_stays = (make_email_row() for _ in range(3))
    async with table_locked(pool):
        first = asyncio.create_task(commit.store(stays))
        await until(lambda: statements_wait(pool))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await commit.store(leaves)
        third = asyncio.create_task(commit.store(also_stays))
    await asyncio.gather(first, third)
    assert {row["id"] for row in await rows_in(pool)} == {stays.id, also_stays.id}


async def test_who_gives_up_while_the_insert_is_on_its_way_does_not_harm_the_others(
    commit: EmailWriter, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    rows = [make_email_row() for _ in range(3)]
    async with table_locked(pool):
        tasks = [asyncio.create_task(commit.store(row)) for row in rows]
        await until(lambda: statements_wait(pool))
        tasks[1].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert answers[0] == Admission(rows[0].id, is_duplicate=False)
    assert answers[2] == Admission(rows[2].id, is_duplicate=False)


async def test_close_stores_what_waits_and_takes_nothing_more(
    make_commit: MakeCommit, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    commit = make_commit(batch_rows=2)
    async with table_locked(pool):
        tasks = [asyncio.create_task(commit.store(make_email_row())) for _ in range(7)]
        await until(lambda: statements_wait(pool))
        closing = asyncio.create_task(commit.close())
        await asyncio.sleep(0)
        with pytest.raises(NotStoredError, match="stopping"):
            await commit.store(make_email_row())
        assert not closing.done()
    await closing
    assert all(task.done() for task in tasks)
    assert {task.result().email_id for task in tasks} == {r["id"] for r in await rows_in(pool)}
    assert len(tasks) == 7


async def test_the_bell_rings_at_the_commit_and_not_for_a_duplicate(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    heard: list[Any] = []
    async with pool.acquire() as listener:

        def hear(*rung: Any) -> None:
            heard.append(rung)

        await listener.add_listener("mailroom_received", hear)
        payload = email()
        await admit(intake, payload)
        await admit(intake, payload)
        await pool.execute("NOTIFY mailroom_received, 'the end of the test'")

        async def is_over() -> bool:
            return bool(heard) and heard[-1][3] == "the end of the test"

        await until(is_over)
        assert [(channel, text) for _, _, channel, text in heard] == [
            ("mailroom_received", ""),
            ("mailroom_received", "the end of the test"),
        ]
        await listener.remove_listener("mailroom_received", hear)


@pytest.mark.parametrize("plan_cache_mode", ["force_custom_plan", "force_generic_plan"])
async def test_the_first_email_of_a_duplicate_is_found_by_the_two_unique_indexes(
    pool: "asyncpg.Pool[asyncpg.Record]", plan_cache_mode: str
) -> None:
    async with pool.acquire() as connection:
        await connection.execute("""
            INSERT INTO incoming_emails
                (zendesk_ticket_id, from_email, subject, idempotency_key, delivery_signature)
            SELECT n::text, 'a@example.com', 'Hello', md5(n::text), md5('s' || n)
            FROM generate_series(1, 10000) AS n
        """)
        await connection.execute("""
            INSERT INTO tombstones (key, email, erasure)
            SELECT md5('t' || n), gen_random_uuid(), gen_random_uuid()
            FROM generate_series(1, 10000) AS n
        """)
        await connection.execute("ANALYZE incoming_emails, tombstones")
        await connection.execute(f"SET plan_cache_mode = {plan_cache_mode}")
        plan = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON) {FIND_FIRST}", ["a", "b", "c"], ["d", "e", "f"], ["g"]
        )
        unique = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'incoming_emails' "
            "AND indexdef ~ 'UNIQUE .*(idempotency_key|delivery_signature)'"
        )
    assert len(unique) == 2
    nodes = list(nodes_of(json.loads(plan)[0]["Plan"]))
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert used == {"tombstones_pkey", *(record["indexname"] for record in unique)}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}


@pytest.mark.parametrize("plan_cache_mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_batch_looks_up_what_was_erased_by_the_index(
    pool: "asyncpg.Pool[asyncpg.Record]", plan_cache_mode: str
) -> None:
    count = 256
    ids, tickets = [uuid4() for _ in range(count)], [str(number) for number in range(count)]
    others = [[None] * count] * (len(attrs.fields(EmailRow)) - 3)
    async with pool.acquire() as connection:
        await connection.execute("""
            INSERT INTO zendesk_erasures (event_key, kind, account_id, ticket_id, happened_at)
            SELECT n::text, 'ticket', '', n::text, now() FROM generate_series(1, 20000) AS n
        """)
        await connection.execute("""
            INSERT INTO tombstones (key, email, erasure)
            SELECT md5(n::text), gen_random_uuid(), gen_random_uuid()
            FROM generate_series(1, 20000) AS n
        """)
        await connection.execute("""
            INSERT INTO zendesk_tickets_in_question (ticket_id)
            SELECT n::text FROM generate_series(1, 20000) AS n
        """)
        await connection.execute(
            "ANALYZE zendesk_erasures, tombstones, zendesk_tickets_in_question"
        )
        await connection.execute(f"SET plan_cache_mode = {plan_cache_mode}")
        plan = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON) {INSERT_UNLESS_IN_QUESTION}", ids, tickets, *others
        )
    nodes = list(nodes_of(json.loads(plan)[0]["Plan"]))
    for table in ("zendesk_erasures", "tombstones", "zendesk_tickets_in_question"):
        (look,) = [node for node in nodes if node.get("Relation Name") == table]
        assert look["Node Type"] != "Seq Scan", look


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes_of(inner)


BROKEN = b'{"ticket_id": "4711", "from_email": "kim@example.org", "subject": "a "b"", "note": "c"}'


async def test_a_payload_that_can_be_read_in_one_way_is_an_ordinary_email(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    admission = await admit(intake, BROKEN.replace(b', "note": "c"', b""), invocation_id="i")
    (row,) = await rows_in(pool)
    assert (admission.email_id, admission.unreadable) == (row["id"], None)
    assert row["subject"] == 'a "b"'
    assert (row["processing_status"], row["processing_error"]) == ("received", None)
    assert json.loads(row["extracted_data"])["repaired"] == [
        "subject: quotes that were not escaped were kept as they are"
    ]
    assert row["idempotency_key"]


async def test_what_zendesk_signed_and_nobody_can_read_is_stored_as_failed_once(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    timestamp = datetime.now(UTC).isoformat()
    for is_duplicate in (False, True):
        admission = await admit(intake, BROKEN + b"\xff", timestamp=timestamp)
        assert admission.is_duplicate is is_duplicate
        assert admission.unreadable
    (row,) = await rows_in(pool)
    assert (row["processing_status"], row["processing_error"]) == ("failed", admission.unreadable)
    assert (row["zendesk_ticket_id"], row["from_email"]) == ("4711", "kim@example.org")
    assert json.loads(row["raw_payload"]) == BROKEN.decode() + "\\xff"
    assert row["completed_at"] is not None
    # Nothing of it stands in the way of other emails.
    assert not (await admit(intake, email())).is_duplicate


@pytest.mark.parametrize("odd", [b"\x00", b"\x00\x00k\x00", b"k\x01\x7f", b"\xed\xa0\x80"])
async def test_what_nobody_can_read_is_stored_whatever_its_sender_holds(
    intake: Intake, pool: "asyncpg.Pool[asyncpg.Record]", odd: bytes
) -> None:
    admission = await admit(intake, BROKEN.replace(b"kim@", odd) + b"\xff")
    assert admission.unreadable
    (row,) = await rows_in(pool)
    assert (row["zendesk_ticket_id"], row["processing_status"]) == ("4711", "failed")
    sender = odd.decode("utf-8", "replace").replace("\x00", "")
    assert row["from_email"] == f"{sender}example.org"


async def test_the_fields_of_earlier_payloads_are_learned_in_memory_and_from_the_database(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    whole = {"ticket_id": "1", "from_email": "kim@example.org", "subject": "a", "note": "b"}
    intake = make_intake()
    # It has looked at the empty database.
    assert (await admit(intake, BROKEN)).unreadable
    await admit(intake, whole)
    assert (await admit(intake, BROKEN.replace(b"4711", b"4712"))).unreadable is None
    # A process that started later.
    later = make_intake()
    assert (await admit(later, BROKEN.replace(b"4711", b"4713"))).unreadable is None
    stated = make_intake(webhook_fields=(("ticket_id", "from_email", "subject"),))
    assert (await admit(stated, BROKEN.replace(b"4711", b"4714"))).unreadable is None
    subjects = [row["subject"] for row in await rows_in(pool)]
    assert subjects == ["", "a", 'a "b"', 'a "b"', 'a "b"", "note": "c']


async def test_what_can_be_read_later_takes_the_place_of_what_could_not(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    timestamp = datetime.now(UTC).isoformat()
    first = await admit(make_intake(), BROKEN, timestamp=timestamp)
    knowing = make_intake(webhook_fields=(("ticket_id", "from_email", "subject", "note"),))
    second = await admit(knowing, BROKEN, timestamp=timestamp, invocation_id="i")
    assert (second.email_id, second.is_duplicate, second.unreadable) == (
        first.email_id,
        False,
        None,
    )
    (row,) = await rows_in(pool)
    assert (row["processing_status"], row["subject"]) == ("received", 'a "b"')
    assert (row["processing_error"], row["completed_at"]) == (None, None)
    assert "repaired" in json.loads(row["extracted_data"])
    (told,) = json.loads(row["attempt_errors"])
    assert "could be read now" in told["error"]
    third = await admit(knowing, BROKEN, timestamp=timestamp)
    assert (third.email_id, third.is_duplicate) == (first.email_id, True)


async def test_what_is_broken_and_not_signed_is_refused(
    make_intake: MakeIntake, pool: "asyncpg.Pool[asyncpg.Record]"
) -> None:
    intake = make_intake(accept_unsigned=True)
    for body in (BROKEN, b"{", b'{"ticket_id": "\xff"}'):
        with pytest.raises(UnreadableBodyError):
            await intake.admit(
                body, email_id=uuid7(), signature=None, timestamp=None, invocation_id=None
            )
    assert await rows_in(pool) == []
