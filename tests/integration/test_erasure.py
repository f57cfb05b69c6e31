"""Erasures: what goes, what stays, what does not come back, and that no interruption and no order
of events leaves anything half removed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import quote
from uuid import UUID

import asyncpg
import attrs
import one_email
import pytest
from asyncpg import Pool
from support import SECRET, WAIT_SECONDS, email, events, make_settings

from app.attachments import enrolling, removing
from app.attachments import transitions as attachments
from app.cli.erase import _line
from app.intake.admission import Admission
from app.intake.comments import SELECT_ERASED
from app.intake.email_row import EmailRow
from app.intake.intake import Intake
from app.intake.signature import sign
from app.intake.writer import _insert_rows
from app.jobs.transitions import erasing
from app.models.erasure import ErasedBy, comment_key, comment_key_sql
from app.retention import erasure, erasure_file, erasure_records
from app.retention.criteria import FIND, FIND_UNREADABLE, Criterion, CriterionError
from app.retention.erasure_records import Record
from app.retention.mentions import pattern_of
from app.telemetry.metrics import ERASURE_FAILURES
from app.telemetry.request_id import uuid7

ERIKA = "erika.mustermann@example.com"
LEASE = timedelta(minutes=1)
SHA = "a" * 64
TABLES = (
    *("incoming_emails", "email_attachments", "email_events", "quarantined_webhooks"),
    "waiting_attachments",
)


@pytest.fixture
async def intake(pool: "Pool[asyncpg.Record]") -> AsyncIterator[Intake]:
    intake = Intake(make_settings(), pool)
    yield intake
    await intake.close()


async def send(intake: Intake, payload: dict[str, Any], *, at: datetime | None = None) -> Admission:
    body = json.dumps(payload).encode()
    timestamp = (at or datetime.now(UTC)).isoformat()
    return await intake.admit(
        body,
        email_id=uuid7(),
        signature=sign(SECRET, timestamp, body),
        timestamp=timestamp,
        invocation_id=None,
    )


async def erase(pool: "Pool[asyncpg.Record]", criterion: Criterion) -> Record:
    erasure_id = await erasure.begin(pool, criterion, by="erika")
    assert await erasure.work_off(pool, erasure_id, criterion)
    record = await erasure_records.read(pool, erasure_id)
    assert record is not None
    return record


async def counts(pool: "Pool[asyncpg.Record]") -> dict[str, int]:
    return {table: await pool.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


async def store_with_all(pool: "Pool[asyncpg.Record]", intake: Intake, **fields: Any) -> UUID:
    """An email with a file, an entry and a copy in the quarantine."""
    file = {"url": f"https://example.com/{uuid7()}.pdf"}
    email_id = (await send(intake, email(attachments=[file], **fields))).email_id
    assert email_id
    await enrolling.enrol(pool, [email_id], most=10)
    await pool.execute(
        "UPDATE email_attachments SET sha256 = $2, state = 'kept' WHERE email = $1", email_id, SHA
    )
    await pool.execute(
        "INSERT INTO email_events (email, kind, text) VALUES ($1, 'delivery', 'it went')", email_id
    )
    await pool.execute("INSERT INTO quarantined_webhooks (id, body) VALUES ($1, 'x')", email_id)
    return email_id


@pytest.mark.parametrize("kind", ["sender", "ticket", "email"])
async def test_an_erasure_takes_all_of_its_emails_and_nothing_of_others(
    intake: Intake, pool: "Pool[asyncpg.Record]", kind: str
) -> None:
    mine = await store_with_all(pool, intake, from_email=ERIKA.title(), ticket_id="1")
    other = await store_with_all(pool, intake, from_email=f"x{ERIKA}", ticket_id="11")
    await pool.execute("UPDATE incoming_emails SET sync_status = 'pending'")
    criterion = {
        "sender": Criterion.sender(f" {ERIKA} "),
        "ticket": Criterion.ticket("1"),
        "email": Criterion.email(mine),
    }[kind]
    found = await erasure.survey(pool, criterion)
    assert (found.emails, found.files, found.entries, found.deliveries) == (1, 1, 1, 1)
    before = await counts(pool)
    record = await erase(pool, criterion)
    assert (record.erased.emails, record.erased.files, record.erased.entries) == (1, 1, 1)
    assert (record.erased.deliveries, record.erased.refused) == (1, 1)
    assert (record.asked_by, record.ended_at is not None) == ("erika", True)
    after = await counts(pool)
    assert {name: before[name] - after[name] for name in before} == {
        **dict.fromkeys(before, 1),
        "waiting_attachments": 0,
    }
    assert await pool.fetchval("SELECT id FROM incoming_emails") == other
    # The bytes of its file are removed from the store by a worker, unless another has the same.
    assert await pool.fetchval("SELECT sha256 FROM attachment_erasures") == SHA
    assert await erasure.survey(pool, criterion) == erasing.Erased()


async def test_the_record_tells_nobody_whom_it_is_about(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, email(from_email=ERIKA))
    criterion = Criterion.sender(ERIKA)
    record = await erase(pool, criterion)
    for table in ("erasures", "tombstones"):
        for row in await pool.fetch(f"SELECT * FROM {table}"):
            assert "erika." not in str(row)
    assert record.is_about(criterion)
    assert record.is_about(Criterion.sender(ERIKA.upper()))
    assert not record.is_about(Criterion.sender("x@example.com"))
    assert "erika." not in repr(criterion)


async def test_the_same_email_is_a_duplicate_for_ever_and_new_mail_is_new(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    once, at = email(from_email=ERIKA), datetime.now(UTC)
    event = events()[0]
    first = await send(intake, once, at=at)
    second = await send(intake, event)
    await erase(pool, Criterion.sender(ERIKA))
    assert second.email_id
    await erase(pool, Criterion.email(second.email_id))
    assert await counts(pool) == dict.fromkeys(TABLES, 0)
    # The very same bytes, a redelivery that is signed anew, and the comment by another event.
    for again, answered in (
        (send(intake, once, at=at), first.email_id),
        (send(intake, once), first.email_id),
        (send(intake, {**event, "id": "another"}), second.email_id),
    ):
        admission = await again
        assert (admission.status, admission.email_id) == ("duplicate", answered)
    # A file of an erased comment waits for nobody.
    file = {**events()[1], "account_id": event["account_id"], "detail": event["detail"]}
    file["event"]["comment"]["id"] = event["event"]["comment"]["id"]
    assert (await send(intake, file)).email_id is None
    assert await counts(pool) == dict.fromkeys(TABLES, 0)
    assert (await send(intake, email(from_email=ERIKA))).status == "accepted"


async def test_an_email_without_any_key_leaves_a_tombstone_of_its_id(
    pool: "Pool[asyncpg.Record]",
) -> None:
    email_id = await pool.fetchval(
        "INSERT INTO incoming_emails (zendesk_ticket_id) VALUES ('1') RETURNING id"
    )
    await erase(pool, Criterion.ticket("1"))
    keys = [row["key"] for row in await pool.fetch("SELECT key FROM tombstones ORDER BY key")]
    assert keys[1] == f"email {email_id}"
    # It may come as a comment, too, by its ticket and the time at which it came.
    assert keys[0].startswith(f"arrived 1 {email_id} ")
    assert len(keys) == 2


async def test_the_key_of_a_comment_is_the_same_here_and_there(
    pool: "Pool[asyncpg.Record]",
) -> None:
    for account in (None, "7"):
        spelt = comment_key_sql("$1::text", "$2::text", "$3::text")
        key = await pool.fetchval(f"SELECT {spelt}", account, "1", "2")
        assert key == comment_key(account, "1", "2")


async def test_unreadable_emails_and_webhooks_are_found_by_their_bytes(
    pool: "Pool[asyncpg.Record]",
) -> None:
    escaped = ERIKA.replace("@", "\\u0040")
    for payload in (json.dumps(f'{{"from": "{escaped}" "'), json.dumps("x@example.com")):
        await pool.execute(
            "INSERT INTO incoming_emails (from_email, raw_payload, processing_status)"
            " VALUES ('', $1, 'failed')",
            payload,
        )
    await pool.execute(
        "INSERT INTO incoming_emails (from_email, original_body) VALUES ('', $1)",
        f"from: <{ERIKA}".encode(),
    )
    for body in (f'{{"from_email": "{ERIKA}', f'{{"from_email": "x@y.z", "body": "{ERIKA}"}}'):
        await pool.execute("INSERT INTO quarantined_webhooks (body) VALUES ($1)", body.encode())
    criterion = Criterion.sender(ERIKA)
    assert (await erasure.survey(pool, criterion)).emails == 2
    record = await erase(pool, criterion)
    assert (record.erased.emails, record.erased.refused) == (2, 1)
    assert await pool.fetchval("SELECT count(*) FROM incoming_emails") == 1
    kept = await pool.fetchval("SELECT body FROM quarantined_webhooks")
    assert b"x@y.z" in kept


async def test_what_a_stranger_wrote_as_a_signature_keeps_no_email_out(
    pool: "Pool[asyncpg.Record]",
) -> None:
    key = comment_key("1", "35436", "99")
    genuine = sign(SECRET, "2026-11-26T09:30:00Z", b"x")
    for signature in (key, "arrived 35436 x y", genuine):
        headers = json.dumps({"x-zendesk-webhook-signature": signature})
        await pool.execute(
            "INSERT INTO quarantined_webhooks (body, headers) VALUES ($1, $2)",
            ERIKA.encode(),
            headers,
        )
    assert (await erase(pool, Criterion.sender(ERIKA))).erased.refused == 3
    keys = {row["key"] for row in await pool.fetch("SELECT key FROM tombstones")}
    assert {key for key in keys if not key.startswith("quarantine:")} == {genuine}
    assert len(keys) == 4


@pytest.mark.parametrize(
    "address", [ERIKA, "o'neil+x%y{1}@[::1]", 'a\\b"@x.y', "jürgen@müller.de", "@"]
)
async def test_postgresql_reads_the_pattern_as_python_does(
    pool: "Pool[asyncpg.Record]", address: str
) -> None:
    pattern = pattern_of(ErasedBy.SENDER, address)
    for text, is_meant in (
        (f"<{address.upper()}>", True),
        (json.dumps(f"\n{address}\n"), True),
        (json.dumps(json.dumps(f"\n{address}\n")), True),
        (f"=3C{quote(address)}%3E".replace("%", "="), True),
        (f"x{address}x", False),
    ):
        assert await pool.fetchval("SELECT $1::text ~* $2", text, pattern) is is_meant, text


async def test_what_is_processed_or_fetched_right_now_is_lost_to_its_worker(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    file = {"url": "https://example.com/a.pdf"}
    email_id = (await send(intake, email(attachments=[file]))).email_id
    assert email_id
    claimed = await one_email.claim(pool, email_id, lease=LEASE, worker="host:1")
    assert isinstance(claimed, tuple)
    await enrolling.enrol(pool, [email_id], most=10)
    (fetched,) = await attachments.claim(pool, limit=1, lease=LEASE)
    assert await attachments.intend(pool, fetched, sha256=SHA, size=3, most_bytes=10)
    await erase(pool, Criterion.email(email_id))
    assert not await one_email.complete(pool, claimed[0], extracted_data="{}", cleaned_body="x")
    assert not await attachments.keep(pool, fetched, sha256=SHA, size=3, content_type=None)
    assert await pool.fetchval("SELECT sha256 FROM attachment_erasures") == SHA
    assert await counts(pool) == dict.fromkeys(TABLES, 0)
    # Its message asks for an email that is not there.
    refusal = await one_email.claim(pool, email_id, lease=LEASE, worker="host:1")
    assert not isinstance(refusal, tuple)


async def test_suspended_mail_and_odd_answers_go_too(pool: "Pool[asyncpg.Record]") -> None:
    copy = await pool.fetchval("INSERT INTO quarantined_webhooks DEFAULT VALUES RETURNING id")
    await pool.execute(
        "INSERT INTO suspended_tickets (id, sender, subject, ticket_id, archived_as)"
        " VALUES (1, $1, 'Hello', NULL, $2), (2, 'x@y.z', 'Hello', 35, NULL)",
        ERIKA.upper(),
        copy,
    )
    await pool.execute(
        "INSERT INTO zendesk_oddities (kind, item) VALUES ('x', $1), ('x', '{}')",
        json.dumps({"from": ERIKA}),
    )
    for criterion, count in ((Criterion.sender(ERIKA), 2), (Criterion.ticket("35"), 1)):
        assert (await erasure.survey(pool, criterion)).refused == count
        assert (await erase(pool, criterion)).erased.refused == count
    for row in await pool.fetch("SELECT * FROM suspended_tickets"):
        assert (row["sender"], row["subject"]) == ("", "")
        assert row["erased_at"] is not None
    assert await pool.fetchval("SELECT item FROM zendesk_oddities") == "{}"
    assert await pool.fetchval("SELECT count(*) FROM quarantined_webhooks") == 0


async def test_the_copy_of_a_suspended_mail_goes_once_nobody_can_be_admitting_it(
    pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its tombstone before, though it was archived a moment ago."""

    async def archive(number: int) -> UUID:
        copy: UUID = await pool.fetchval(
            "INSERT INTO quarantined_webhooks DEFAULT VALUES RETURNING id"
        )
        await pool.execute(
            "UPDATE suspended_tickets SET archived_as = $2 WHERE id = $1", number, copy
        )
        return copy

    await pool.execute(
        "INSERT INTO suspended_tickets (id, sender) SELECT n, $1 FROM generate_series(1, 2) AS n",
        ERIKA,
    )
    copies = [await archive(1)]
    async with a_writer_that_does_not_end(pool, monkeypatch):
        for _ in range(2):
            with pytest.raises(erasing.StillWritingError):
                await erase(pool, Criterion.sender(ERIKA))
    assert await pool.fetchval("SELECT sender FROM suspended_tickets WHERE id = 1") == ERIKA
    assert await pool.fetchval("SELECT count(*) FROM quarantined_webhooks") == 1
    settle_writers = erasing.settle_writers

    async def archived_meanwhile(*args: Any) -> None:
        await settle_writers(*args)
        if len(copies) == 1:
            copies.append(await archive(2))

    monkeypatch.setattr(erasing, "settle_writers", archived_meanwhile)
    assert (await erase(pool, Criterion.sender(ERIKA))).erased.refused == 2
    assert await pool.fetchval("SELECT count(*) FROM quarantined_webhooks") == 0
    keys = {row["key"] for row in await pool.fetch("SELECT key FROM tombstones")}
    assert keys == {f"quarantine:{copy}" for copy in copies}


async def test_what_came_back_with_a_part_of_it_is_emptied_whole_again(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    email_id = (await send(intake, email(from_email=ERIKA))).email_id
    assert email_id is not None
    for whole in (False, True):
        async with pool.acquire() as connection, connection.transaction():
            await erasing.empty(connection, [email_id], told="erased", whole=whole)
    lines = [line async for line in erasure_file.export(pool)]
    # As a backup has it that was made between the two.
    await pool.execute("UPDATE incoming_emails SET from_email = $1, subject = 'Hello'", ERIKA)
    assert (await erasure_file.restore(pool, lines)).emails == 1
    row = await pool.fetchrow("SELECT from_email, subject FROM incoming_emails")
    assert row is not None
    assert tuple(row) == ("", "")
    assert (await erasure_file.restore(pool, lines)).emails == 0


async def test_saved_searches_for_a_sender_go_too(pool: "Pool[asyncpg.Record]") -> None:
    await pool.execute(
        "INSERT INTO saved_searches (user_id, name, search)"
        " VALUES (1, 'Hers', $1), (1, $2, 'status:failed'), (1, 'Others', 'from:example.org')",
        f"status:failed from:{ERIKA.upper()}",
        ERIKA,
    )
    await erase(pool, Criterion.sender(ERIKA))
    rows = await pool.fetch("SELECT name FROM saved_searches")
    assert [row["name"] for row in rows] == ["Others"]


async def test_the_receiver_is_told_of_emails_that_it_knows(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    known = (await send(intake, email(from_email=ERIKA))).email_id
    await pool.execute("UPDATE incoming_emails SET sync_status = 'synced', synced_at = now()")
    await send(intake, email(from_email=ERIKA))
    await erase(pool, Criterion.sender(ERIKA))
    told = await pool.fetch("SELECT kind, email, sync_status FROM sync_events")
    assert [tuple(row) for row in told] == [("email.erased", known, "pending")]


STEPS = [
    *[(erasing, "MARK"), (erasing, "WRITERS"), (erasing, "LOCK"), (erasing, "DELETE_COPIES")],
    *[(erasing, "DELETE_ENTRIES"), (erasing, "DELETE_WAITING"), (erasing, "REMOVE")],
    *[(removing, "ERASE"), (erasure_records, "ADD"), (erasure_records, "END")],
    *[(erasure, "MARK_REFUSED"), (erasure, "DELETE_REFUSED")],
]


@pytest.mark.parametrize(("module", "name"), STEPS, ids=[name for _, name in STEPS])
async def test_whatever_step_an_erasure_dies_at_a_second_run_finishes_it(
    intake: Intake,
    pool: "Pool[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 1)
    for _ in range(2):
        await store_with_all(pool, intake, from_email=ERIKA)
    await pool.execute("INSERT INTO quarantined_webhooks (body) VALUES ($1)", f"<{ERIKA}>".encode())
    criterion = Criterion.sender(ERIKA)
    with monkeypatch.context() as broken:
        broken.setattr(module, name, "SELECT 1 / 0 WHERE $1 IS NULL")
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await erase(pool, criterion)
    emails, files, *_ = (await counts(pool)).values()
    assert emails == files
    assert await pool.fetchval("SELECT count(*) FROM erasures WHERE ended_at IS NULL") == 1
    assert await erasure.finish_left(pool) == 0, "somebody may be at it still"
    await pool.execute("UPDATE erasures SET worked_at = now() - interval '1 hour'")
    assert await erasure.finish_left(pool) == 1
    assert await counts(pool) == dict.fromkeys(TABLES, 0)
    record = (await erasure_records.list_newest(pool, 1))[0]
    assert record.ended_at is not None
    assert (record.erased.emails, record.erased.refused) == (2, 3)
    assert await pool.fetchval("SELECT count(criterion) FROM erasures") == 0


FAILURES = [
    erasing.StillWritingError("about erika.mustermann@example.com"),
    # Of a row that somebody has locked and forgotten.
    TimeoutError(),
    asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
    asyncpg.DeadlockDetectedError("deadlock detected"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
async def test_one_that_always_fails_holds_up_no_other(
    intake: Intake,
    pool: "Pool[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    told = type(failure).__name__
    for sender in (ERIKA, "kim@example.com"):
        await send(intake, email(from_email=sender))
    bad = await erasure.begin(pool, Criterion.sender(ERIKA), by="olga")
    await erasure.begin(pool, Criterion.sender("kim@example.com"), by="olga")
    work_off = erasure.work_off

    async def fail_at_the_bad_one(pool: Any, erasure_id: UUID, criterion: Criterion) -> bool:
        if erasure_id == bad:
            raise failure
        return await work_off(pool, erasure_id, criterion)

    with monkeypatch.context() as broken:
        broken.setattr(erasure, "work_off", fail_at_the_bad_one)
        for _ in range(2):
            await pool.execute("UPDATE erasures SET worked_at = '-infinity'")
            await erasure.finish_left(pool)
    assert await pool.fetchval("SELECT from_email FROM incoming_emails") == ERIKA
    failed, ended = await erasure_records.list_newest(pool, 2)
    if failed.id != bad:
        failed, ended = ended, failed
    assert (ended.failures, ended.ended_at is None) == (0, False)
    assert (failed.failures, failed.last_error, failed.ended_at) == (2, told, None)
    line = _line(failed)
    assert f"failed 2 times ({told}), is tried again by workers" in line
    # Not at once.
    assert await erasure.finish_left(pool) == 0
    await pool.execute("UPDATE erasures SET worked_at = '-infinity'")
    assert await erasure.finish_left(pool) == 1
    assert await pool.fetchval("SELECT count(*) FROM incoming_emails") == 0


async def test_where_the_database_is_away_no_erasure_has_failed(
    pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    await erasure.begin(pool, Criterion.sender(ERIKA), by="olga")
    await pool.execute("UPDATE erasures SET worked_at = '-infinity'")
    for module, name in ((erasure, "work_off"), (erasure_records, "fail")):
        broken = AsyncMock(side_effect=ConnectionRefusedError)
        monkeypatch.setattr(module, name, broken)
    failures = ERASURE_FAILURES._value.get()
    with pytest.raises(ConnectionRefusedError):
        await erasure.finish_left(pool)
    assert ERASURE_FAILURES._value.get() == failures


async def test_the_erased_emails_of_a_ticket_are_found_by_an_index_under_any_collation(
    pool: "Pool[asyncpg.Record]",
) -> None:
    async with pool.acquire() as connection, connection.transaction():
        # To PostgreSQL it is one like any other, though it sorts as C does.
        await connection.execute("CREATE COLLATION other (provider = libc, locale = 'C.UTF-8')")
        await connection.execute(
            "ALTER TABLE tombstones ALTER COLUMN key TYPE varchar(255) COLLATE other"
        )
        await connection.execute("""
            INSERT INTO tombstones (key, email, erasure)
            SELECT 'arrived ' || n % 3000 || ' ' || gen_random_uuid() || ' ' || n,
                gen_random_uuid(), gen_random_uuid()
            FROM generate_series(1, 12000) AS n
            UNION ALL
            SELECT 'email ' || gen_random_uuid(), gen_random_uuid(), gen_random_uuid()
            FROM generate_series(1, 12000) AS n
        """)
        await connection.execute("ANALYZE tombstones")
        rows = await connection.fetch(SELECT_ERASED, "arrived 30")
        assert sorted(int(row["key"].split()[-1]) for row in rows) == [30, 3030, 6030, 9030]
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
            lines = await connection.fetch(f"EXPLAIN {SELECT_ERASED}", "arrived 30")
            plan = "\n".join(line["QUERY PLAN"] for line in lines)
            assert "ix_tombstones_arrived" in plan, plan
            assert "Index Cond" in plan, plan


async def test_an_erasure_in_two_processes_at_once_counts_each_once(
    intake: Intake, pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 3)
    for _ in range(10):
        await send(intake, email(from_email=ERIKA))
    criterion = Criterion.sender(ERIKA)
    erasure_id = await erasure.begin(pool, criterion, by="erika")
    await asyncio.gather(*(erasure.work_off(pool, erasure_id, criterion) for _ in range(3)))
    record = await erasure_records.read(pool, erasure_id)
    assert record is not None
    assert record.erased.emails == 10


async def until(pool: "Pool[asyncpg.Record]", condition: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await pool.fetchval(f"SELECT EXISTS ({condition})"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


WAITS = """SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'
    AND datname = current_database() AND query LIKE '%WITH buried AS%'"""
MARKED = "SELECT FROM tombstones"


@pytest.mark.parametrize("begun", ["before", "marked", "removing", "after"])
async def test_a_redelivery_at_the_same_moment_ends_erased(
    intake: Intake, pool: "Pool[asyncpg.Record]", begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The redelivery's INSERT begins before the tombstones are there, between them and the removal,
    while that has not committed, or afterwards. It is held in the middle by a row of its batch
    whose key another transaction is just writing."""
    once = email(from_email=ERIKA)
    await send(intake, once)
    criterion = Criterion.sender(ERIKA)
    erasure_id = await erasure.begin(pool, criterion, by="erika")
    go_on, reached = asyncio.Event(), asyncio.Event()

    async def pause_at(step: str) -> None:
        if step == begun:
            reached.set()
            await go_on.wait()

    settle_writers, remove = erasing.settle_writers, erasing.remove

    async def settled(*args: Any) -> None:
        await pause_at("marked")
        await settle_writers(*args)

    async def removed(*args: Any) -> Any:
        result = await remove(*args)
        await pause_at("removing")
        return result

    monkeypatch.setattr(erasing, "settle_writers", settled)
    monkeypatch.setattr(erasing, "remove", removed)

    if begun == "before":
        async with pool.acquire() as blocker:
            transaction = blocker.transaction()
            await transaction.start()
            key = await pool.fetchval("SELECT idempotency_key FROM incoming_emails")
            await blocker.execute(
                "INSERT INTO incoming_emails (delivery_signature) VALUES ('held')"
            )
            held = asyncio.create_task(insert_behind(pool, key))
            await until(pool, WAITS)
            work = asyncio.create_task(erasure.work_off(pool, erasure_id, criterion))
            await until(pool, MARKED)
            # It knows of the INSERT and waits for it, or the email would be gone by now.
            done, _ = await asyncio.wait({work}, timeout=0.5)
            assert not done
            await transaction.rollback()
        assert await held == ("accepted", "duplicate")
        assert await work
    else:
        work = asyncio.create_task(erasure.work_off(pool, erasure_id, criterion))
        if begun == "after":
            await work
        else:
            await reached.wait()
        admission = await send(intake, once)
        go_on.set()
        await work
        assert admission.status == "duplicate"
    assert (
        await pool.fetchval(
            "SELECT count(*) FROM incoming_emails WHERE lower(from_email) = lower($1)", ERIKA
        )
        == 0
    )


async def insert_behind(pool: "Pool[asyncpg.Record]", key: str) -> tuple[str, str]:
    """The Intake's INSERT of two rows: one that waits for whoever writes `held`, then one with this
    key. Returns what became of them."""
    row = EmailRow(
        id=uuid7(),
        zendesk_ticket_id="1",
        zendesk_webhook_id=None,
        from_email=ERIKA,
        from_name=None,
        subject="",
        raw_body_html=None,
        raw_body_text=None,
        received_at=datetime.now(UTC),
        idempotency_key=key,
        attachment_urls=None,
        raw_payload="{}",
        delivery_signature=None,
        attempt_errors="[]",
    )
    held = attrs.evolve(
        row, id=uuid7(), from_email="x@y.z", idempotency_key=None, delivery_signature="held"
    )
    async with pool.acquire() as connection:
        admissions: dict[UUID, Admission] = {}
        await _insert_rows(connection, [held, row], admissions)
    return admissions[held.id].status.value, admissions[row.id].status.value


@asynccontextmanager
async def a_writer_that_does_not_end(
    pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """What it sees no tombstone of it may be about to store."""
    with monkeypatch.context() as shortened:
        shortened.setattr(erasing, "LONGEST_WRITE_SECONDS", 0.1)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT count(*) FROM tombstones")
            await connection.execute("UPDATE incoming_emails SET subject = '' WHERE false")
            yield


async def test_whoever_erases_waits_for_a_writer_that_does_not_end(
    intake: Intake, pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only who has set the tombstones: the next try finds them there."""
    email_id = (await send(intake, email(from_email=ERIKA))).email_id
    assert email_id is not None
    async with a_writer_that_does_not_end(pool, monkeypatch):
        with pytest.raises(erasing.StillWritingError, match="pg_stat_activity"):
            await erase(pool, Criterion.sender(ERIKA))
        assert await pool.fetchval("SELECT count(*) FROM tombstones") > 0
        for criterion in (Criterion.sender(ERIKA), Criterion.email(email_id)):
            with pytest.raises(erasing.StillWritingError):
                await erase(pool, criterion)
        await pool.execute("UPDATE erasures SET worked_at = '-infinity'")
        assert await erasure.finish_left(pool) == 0
    assert await pool.fetchval("SELECT count(*) FROM incoming_emails") == 1
    await erase(pool, Criterion.sender(ERIKA))
    assert await pool.fetchval("SELECT count(*) FROM incoming_emails") == 0


async def test_what_a_backup_brought_back_is_erased_when_the_writers_have_ended(
    intake: Intake, pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(intake, email(from_email=ERIKA))
    row = await pool.fetchval("SELECT to_jsonb(e) FROM incoming_emails AS e")
    await erase(pool, Criterion.sender(ERIKA))
    lines = [line async for line in erasure_file.export(pool)]
    await pool.execute(
        "INSERT INTO incoming_emails"
        " SELECT * FROM jsonb_populate_record(NULL::incoming_emails, $1::jsonb)",
        row,
    )
    async with a_writer_that_does_not_end(pool, monkeypatch):
        with pytest.raises(erasing.StillWritingError):
            await erasure_file.restore(pool, lines)
    assert (await erasure_file.restore(pool, lines)).emails == 1


async def test_a_file_of_erasures_of_any_length_is_written_in_parts_and_whole_or_not_at_all(
    pool: "Pool[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    stones = [
        {"key": f"email {uuid7()}", "email": str(uuid7()), "erasure": str(uuid7())}
        for _ in range(5)
    ]
    at = datetime.now(UTC).isoformat()
    lines = [
        json.dumps({"of": "tombstones", "row": {**stone, "created_at": at}}) for stone in stones
    ]
    await pool.execute("""
        CREATE FUNCTION refuse_many() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF (SELECT count(*) FROM added) > 2 THEN RAISE 'too many at once'; END IF;
                RETURN NULL;
            END
        $$;
        CREATE TRIGGER refuse_many AFTER INSERT ON tombstones
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_many()
    """)
    monkeypatch.setattr(erasure_file, "WRITTEN_AT_ONCE", 2)
    wrong = json.dumps({"of": "tombstones", "row": {"key": "email x", "email": "no id"}})
    with pytest.raises(erasure_file.ErasureFileError):
        await erasure_file.restore(pool, [*lines, wrong])
    assert await pool.fetchval("SELECT count(*) FROM tombstones") == 0
    assert (await erasure_file.restore(pool, lines)).records == 5
    assert await pool.fetchval("SELECT count(*) FROM tombstones") == 5


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_emails_of_a_sender_or_a_ticket_are_found_by_an_index(
    pool: "Pool[asyncpg.Record]", mode: str
) -> None:
    """Of millions, and the unreadable ones among them; with the statistics of a full table."""
    async with pool.acquire() as connection:
        await connection.execute("""
            INSERT INTO incoming_emails (from_email, zendesk_ticket_id)
            SELECT CASE WHEN n % 1000 > 0 THEN 'Kim' || n || '@example.com' ELSE '' END,
                CASE WHEN n % 1000 > 0 THEN n::text ELSE '' END
            FROM generate_series(1, 20000) AS n
        """)
        await connection.execute("ANALYZE incoming_emails")
        await connection.execute(f"SET plan_cache_mode = {mode}")
        for kind, index in ((ErasedBy.SENDER, "sender"), (ErasedBy.TICKET, "ticket")):
            for query in (FIND[kind], FIND_UNREADABLE[kind]):
                lines = await connection.fetch(f"EXPLAIN {query}", "x", 200)
                plan = "\n".join(line["QUERY PLAN"] for line in lines)
                assert f"ix_incoming_emails_{index}" in plan, plan


@pytest.mark.parametrize("value", ["", "  ", "a\x00b", "x" * 321])
def test_what_no_email_can_have_is_refused(value: str) -> None:
    with pytest.raises(CriterionError):
        Criterion.sender(value)
    with pytest.raises(CriterionError):
        Criterion.ticket(value)
