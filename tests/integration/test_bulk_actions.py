"""Bulk actions: what each does to which email, that its counts are exact, and how PostgreSQL finds
its rows."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest
from support import make_settings

from app.api.bulk_selection import select
from app.attachments.enrolling import enrol
from app.audit.actors import Actor
from app.bulk import acting, asking, rows
from app.bulk.asking import AskingError
from app.bulk.carrying_out import carry_out, step
from app.bulk.rows import Bulk
from app.jobs.chores import ChoreContext
from app.jobs.transitions import erasing, operators
from app.models.audit_entry import ActorKind, Door
from app.models.bulk_action import Action, BulkState
from app.retention import erasure, erasure_records
from app.retention.criteria import Criterion

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
OLGA = Actor(kind=ActorKind.USER, name="olga", door=Door.PAGE)
SYNC = {"sync_url": "https://crm.example.com/", "sync_secrets": "whsec_" + "c2VjcmV0" * 5}
SETTINGS = make_settings()
DELIVERS = make_settings(**SYNC)
FAILED = {"processing_status": "failed", "completed_at": NOW, "processing_error": "503"}
COMPLETED = {"processing_status": "completed", "completed_at": NOW}


async def store(pool: Pool, **columns: Any) -> UUID:
    columns = {"from_email": "erika@example.com", "created_at": NOW - HOUR, **columns}
    numbers = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(columns)}) VALUES ({numbers}) RETURNING id",
        *columns.values(),
    )
    return email_id


async def begin(
    pool: Pool, action: Action, text: str = "", settings: Any = SETTINGS, **more: Any
) -> Bulk:
    more = {"reason": "spam", **more}
    return await asking.start(
        pool, uuid4(), action, select(text), settings, by="olga", actor=OLGA, **more
    )


async def carry_on(pool: Pool, settings: Any = SETTINGS) -> None:
    async def note(text: str) -> None:
        pass

    await carry_out(settings, ChoreContext(pool, asyncio.Event(), note))


async def read(pool: Pool, bulk: Bulk) -> Bulk:
    found = await rows.read(pool, bulk.id)
    assert found is not None
    return found


async def status_of(pool: Pool, email_id: UUID) -> str | None:
    status: str | None = await pool.fetchval(
        "SELECT processing_status FROM incoming_emails WHERE id = $1", email_id
    )
    return status


@pytest.mark.parametrize("is_previewed", [True, False])
async def test_words_find_what_was_stored_a_moment_ago(pool: Pool, is_previewed: bool) -> None:
    await store(pool, subject="Late invoice", **FAILED)
    if is_previewed:
        seen = await asking.preview(pool, Action.RETRY, select("invoice"), SETTINGS)
        assert seen.total == 1
    else:
        assert (await begin(pool, Action.RETRY, "invoice")).total == 1


async def test_a_retry_does_what_its_preview_says(pool: Pool) -> None:
    failed = [await store(pool, **FAILED) for _ in range(3)]
    others = {
        "completed": await store(pool, **COMPLETED),
        "received": await store(pool),
        "texts_removed": await store(pool, **FAILED, bodies_removed_at=NOW),
        "erased": await store(pool, **COMPLETED, erased_at=NOW),
    }
    seen = await asking.preview(pool, Action.RETRY, select(""), SETTINGS)
    assert (seen.total, seen.can) == (7, 3)
    assert seen.cannot == dict.fromkeys(others, 1)
    assert {row["id"]: row["why"] for row in seen.first} == dict.fromkeys(failed) | {
        email_id: why for why, email_id in others.items()
    }
    assert await status_of(pool, failed[0]) == "failed"

    bulk = await begin(pool, Action.RETRY)
    await carry_on(pool)
    ended = await read(pool, bulk)
    assert (ended.state, ended.total) == (BulkState.ENDED, 7)
    assert (ended.done, ended.skipped, ended.failed) == (3, 4, 0)
    assert ended.reasons == dict.fromkeys(others, 1)
    left = await rows.find_left_out(pool, bulk.id, limit=10)
    assert {one.email: one.why for one in left} == {one: why for why, one in others.items()}
    for email_id in failed:
        row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
        assert row is not None
        assert row["processing_status"] == "queued"
        assert "retried by olga" in row["attempt_errors"]


@pytest.mark.parametrize(
    ("action", "told"),
    [(Action.SETTLE, "completed by olga: spam"), (Action.DISCARD, "discarded by olga: spam")],
)
async def test_failed_ones_are_completed_by_hand(pool: Pool, action: Action, told: str) -> None:
    failed = await store(pool, **FAILED, extracted_data='{"a": 1}')
    await store(pool, **COMPLETED)
    bulk = await begin(pool, action, "status:failed status:completed")
    await carry_on(pool)
    ended = await read(pool, bulk)
    assert (ended.done, ended.skipped, ended.reasons) == (1, 1, {"completed": 1})
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", failed)
    assert row is not None
    assert row["processing_status"] == "completed"
    assert told in row["attempt_errors"]
    assert (row["extracted_data"] is None) == (action is Action.DISCARD)


async def test_missing_files_are_fetched_again(pool: Pool) -> None:
    files = '[{"url": "https://files.example.com/1"}, {"url": "https://files.example.com/2"}]'
    never, failed, kept = [await store(pool, attachment_urls=files) for _ in range(3)]
    await store(pool)
    await enrol(pool, [failed, kept], most=10)
    await pool.execute(
        "UPDATE email_attachments SET state = 'kept', ended_at = now() WHERE email = $1"
        " OR position = 0",
        kept,
    )
    await pool.execute("UPDATE email_attachments SET state = 'failed' WHERE state = 'pending'")
    seen = await asking.preview(pool, Action.FETCH, select(""), SETTINGS)
    assert (seen.can, seen.cannot) == (2, {"nothing_missing": 1, "no_files": 1})
    bulk = await begin(pool, Action.FETCH)
    await carry_on(pool)
    ended = await read(pool, bulk)
    assert (ended.done, ended.reasons) == (2, {"nothing_missing": 1, "no_files": 1})
    states = await pool.fetch("SELECT email, position, state FROM email_attachments")
    assert {(row["email"], row["position"], row["state"]) for row in states} == {
        *((never, 0, "pending"), (never, 1, "pending")),
        *((failed, 0, "kept"), (failed, 1, "pending")),
        *((kept, 0, "kept"), (kept, 1, "kept")),
    }


@pytest.mark.parametrize("files", ["[]", "{}", "null", '"a"', '["\\u0000"]', "[null]"])
async def test_a_preview_of_fetching_tells_what_will_be_whatever_the_list_of_files_is(
    pool: Pool, files: str
) -> None:
    await store(pool, attachment_urls=files)
    seen = await asking.preview(pool, Action.FETCH, select(""), SETTINGS)
    bulk = await begin(pool, Action.FETCH)
    await carry_on(pool)
    ended = await read(pool, bulk)
    assert (ended.done, ended.reasons) == (seen.can, seen.cannot)


async def test_results_are_delivered_again(pool: Pool) -> None:
    done = {**COMPLETED, "completed_at": NOW - 3 * HOUR}
    synced = {**done, "sync_status": "synced", "sync_version": 1, "synced_at": NOW - HOUR}
    again = [
        await store(pool, **synced),
        await store(pool, **done, sync_status="failed", sync_version=1),
        await store(pool, **done),
        await store(pool, **done, sync_status="pending", sync_next_attempt_at=NOW + HOUR),
    ]
    await store(pool, **done, sync_status="pending", sync_next_attempt_at=NOW - HOUR)
    await store(pool, **done, sync_status="pending", sync_lease_expires_at=NOW + HOUR)
    await store(pool, **FAILED)
    cannot = {"due": 1, "in_delivery": 1, "failed": 1}
    seen = await asking.preview(pool, Action.DELIVER, select(""), DELIVERS)
    assert (seen.can, seen.cannot) == (4, cannot)
    bulk = await begin(pool, Action.DELIVER, settings=DELIVERS)
    await carry_on(pool, DELIVERS)
    ended = await read(pool, bulk)
    assert (ended.done, ended.reasons) == (4, cannot)
    due = await pool.fetch(
        "SELECT id FROM incoming_emails WHERE sync_status = 'pending' AND sync_next_attempt_at"
        " BETWEEN $1 AND now()",
        NOW,
    )
    assert {row["id"] for row in due} == set(again)
    told = await pool.fetchval("SELECT count(*) FROM email_events WHERE who = 'olga'")
    assert told == 4


async def test_an_erasure_has_to_be_meant_and_forgets_its_search(pool: Pool) -> None:
    for _ in range(3):
        await store(pool, **FAILED, idempotency_key=uuid4().hex)
    kept = await store(pool, from_email="other@example.com")
    text = "from:erika@example.com"
    with pytest.raises(AskingError, match="type how many they are, which is 3") as wrong:
        await begin(pool, Action.ERASE, text, confirmed=2)
    assert wrong.value.field == "confirm"
    assert await rows.list_newest(pool, limit=9) == []
    bulk = await begin(pool, Action.ERASE, text, confirmed=3)
    await carry_on(pool)
    ended = await read(pool, bulk)
    assert (ended.done, ended.skipped, ended.filter) == (3, 0, "(erased)")
    record = await erasure_records.read(pool, bulk.id)
    assert record is not None
    assert (record.erased.emails, record.asked_by) == (3, "olga")
    assert record.ended_at is not None
    left = await pool.fetch("SELECT id FROM incoming_emails")
    assert [row["id"] for row in left] == [kept]
    assert await pool.fetchval("SELECT count(*) FROM tombstones WHERE key LIKE 'email %'") == 3


async def test_an_erasure_waits_for_who_may_store_an_email_again_at_each_try(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(pool, **FAILED, idempotency_key=uuid4().hex)
    bulk = await begin(pool, Action.ERASE, "status:failed", confirmed=1)
    monkeypatch.setattr(erasing, "LONGEST_WRITE_SECONDS", 0.1)
    async with pool.acquire() as writer, writer.transaction():
        await writer.execute("SELECT count(*) FROM tombstones")
        await writer.execute("UPDATE incoming_emails SET subject = '' WHERE false")
        for _ in range(2):
            with pytest.raises(erasing.StillWritingError):
                await step(pool, SETTINGS, bulk.id)
    assert await step(pool, SETTINGS, bulk.id) == 1


async def test_who_is_erased_stands_in_no_search_any_longer(pool: Pool) -> None:
    await store(pool, **FAILED)
    named = await begin(pool, Action.RETRY, "from:Erika@example.com")
    other = await begin(pool, Action.RETRY, "status:failed")
    await erasure.erase(pool, Criterion.sender("erika@example.com"), by="olga", actor=OLGA)
    assert (await read(pool, named)).filter == "(erased)"
    assert (await read(pool, other)).filter == "status:failed"


async def test_who_is_erased_stands_in_no_reason_any_longer(pool: Pool) -> None:
    await store(pool, **FAILED)
    told = await begin(pool, Action.SETTLE, "status:failed", reason="told erika@example.com")
    await erasure.erase(pool, Criterion.sender("erika@example.com"), by="olga", actor=OLGA)
    left = await read(pool, told)
    assert (left.filter, left.reason) == ("status:failed", "(erased)")


async def test_what_comes_later_is_not_meant(pool: Pool) -> None:
    meant = await store(pool, **FAILED)
    selection = select("status:failed", until=NOW)
    late = await store(pool, **FAILED, created_at=NOW + timedelta(seconds=1))
    bulk = await asking.start(
        pool, uuid4(), Action.RETRY, selection, SETTINGS, by="olga", actor=OLGA
    )
    failed_since = await store(pool)
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'failed' WHERE id = $1", failed_since
    )
    await carry_on(pool)
    assert (await read(pool, bulk)).total == 1
    assert await status_of(pool, meant) == "queued"
    assert await status_of(pool, late) == await status_of(pool, failed_since) == "failed"


async def test_who_asks_twice_has_asked_once(pool: Pool) -> None:
    await store(pool, **FAILED)
    action_id = uuid4()
    for _ in range(2):
        bulk = await asking.start(
            pool, action_id, Action.RETRY, select(""), SETTINGS, by="olga", actor=OLGA
        )
        assert (bulk.id, bulk.total) == (action_id, 1)
    assert await pool.fetchval("SELECT count(*) FROM bulk_action_emails") == 1


async def test_two_who_carry_it_out_at_once_count_each_email_once(pool: Pool) -> None:
    """As where one is taken for dead, and goes on."""
    await pool.execute(
        "INSERT INTO incoming_emails (from_email, processing_status, created_at)"
        " SELECT 'erika@example.com', 'failed', $1 FROM generate_series(1, 1500)",
        NOW - HOUR,
    )
    bulk = await begin(pool, Action.RETRY, "status:failed")
    await asyncio.gather(*(carry_on(pool) for _ in range(3)))
    ended = await read(pool, bulk)
    assert (ended.state, ended.total, ended.done) == (BulkState.ENDED, 1500, 1500)
    told = await pool.fetch("SELECT jsonb_array_length(attempt_errors) AS n FROM incoming_emails")
    assert {row["n"] for row in told} == {1}
    # Of what is done nothing is left to be kept.
    assert await pool.fetchval("SELECT count(*) FROM bulk_action_emails") == 0


async def test_it_is_stopped_and_goes_on(pool: Pool) -> None:
    ids = [await store(pool, **FAILED) for _ in range(201)]
    bulk = await begin(pool, Action.RETRY)
    assert await step(pool, SETTINGS, bulk.id) == 200
    assert await rows.stop(pool, bulk.id, by="ada", actor=OLGA)
    assert not await rows.stop(pool, bulk.id, by="ada", actor=OLGA)
    await carry_on(pool)
    stopped = await read(pool, bulk)
    assert (stopped.state, stopped.stopped_by, stopped.done) == (BulkState.STOPPED, "ada", 200)
    # Meanwhile somebody retries the last one.
    left = [one for one in ids if await status_of(pool, one) == "failed"]
    assert await operators.retry_many(pool, left, by="erika") == left
    assert await rows.resume(pool, bulk.id, actor=OLGA)
    assert not await rows.resume(pool, bulk.id, actor=OLGA)
    await carry_on(pool)
    ended = await read(pool, bulk)
    assert (ended.state, ended.done, ended.reasons) == (BulkState.ENDED, 200, {"queued": 1})


async def test_what_somebody_holds_or_the_database_refuses_holds_up_nobody(pool: Pool) -> None:
    held, refused, fine = [await store(pool, **FAILED) for _ in range(3)]
    await pool.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON incoming_emails FOR EACH ROW
            WHEN (OLD.id = '{refused}') EXECUTE FUNCTION refuse()
    """)
    try:
        bulk = await begin(pool, Action.RETRY)
        async with pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", held)
            await carry_on(pool)
    finally:
        await pool.execute("DROP FUNCTION refuse CASCADE")
    ended = await read(pool, bulk)
    assert (ended.done, ended.skipped, ended.failed) == (1, 1, 1)
    assert ended.reasons == {"busy": 1, "refused": 1}
    assert await status_of(pool, fine) == "queued"


async def test_what_somebody_lets_go_between_two_tries_is_done_and_counted_so(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, fine = [await store(pool, **FAILED) for _ in range(2)]
    bulk = await begin(pool, Action.RETRY)
    find_why = acting._find_why
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", held)

        async def find_why_and_let_go(*arguments: Any) -> Any:
            why = await find_why(*arguments)
            if why:
                assert why == {held: acting.BUSY}
                await transaction.rollback()
            return why

        monkeypatch.setattr(acting, "_find_why", find_why_and_let_go)
        await carry_on(pool)
    ended = await read(pool, bulk)
    assert (ended.done, ended.skipped, ended.reasons) == (2, 0, {})
    assert await rows.find_left_out(pool, bulk.id, limit=10) == []
    assert [await status_of(pool, one) for one in (held, fine)] == ["queued", "queued"]


async def test_one_that_cannot_go_on_holds_up_no_other(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(pool, **FAILED)
    first, second = [await begin(pool, Action.RETRY, "status:failed") for _ in range(2)]

    async def advance(connection: Any, action_id: UUID, *arguments: Any, **more: Any) -> None:
        if action_id == first.id:
            raise ValueError("broken")
        await real(connection, action_id, *arguments, **more)

    real = rows.advance
    monkeypatch.setattr(rows, "advance", advance)
    with pytest.raises(ValueError, match="broken"):
        await carry_on(pool)
    assert (await read(pool, second)).done == 1
    waits = await read(pool, first)
    assert (waits.state, waits.looked_at) == (BulkState.RUNNING, 0)
    monkeypatch.undo()
    await carry_on(pool)
    assert (await read(pool, first)).reasons == {"queued": 1}


@pytest.mark.parametrize(
    ("action", "text", "more", "message"),
    [
        (Action.SETTLE, "", {"reason": " "}, "say why"),
        (Action.SETTLE, "", {"reason": "x" * 501}, "longer than 500"),
        (Action.RETRY, "colour:red", {}, "there is no colour: to search by"),
        (Action.RETRY, "status:processing", {}, "no email is like that: nothing was begun"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_begins(
    pool: Pool, action: Action, text: str, more: Any, message: str
) -> None:
    await store(pool, **FAILED)
    with pytest.raises(AskingError, match=message):
        await asking.start(
            pool,
            uuid4(),
            action,
            select(text),
            SETTINGS,
            by="olga",
            actor=OLGA,
            **{"reason": "x", **more},
        )
    assert await rows.list_newest(pool, limit=9) == []


async def test_nobody_means_all_by_chance() -> None:
    for text, ids in ((None, []), ("", [uuid4()])):
        with pytest.raises(AskingError, match="by a search or by their ids"):
            select(text, ids)


async def test_its_statements_find_their_rows_by_indexes(pool: Pool) -> None:
    ids = [uuid4() for _ in range(200)]
    async with pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO bulk_action_emails (action, email)"
            " SELECT $1, gen_random_uuid() FROM generate_series(1, 20000)",
            ids[0],
        )
        await connection.execute(
            "INSERT INTO incoming_emails (from_email, processing_status)"
            " SELECT 'a@example.com', 'completed' FROM generate_series(1, 20000)"
        )
        await connection.execute("ANALYZE bulk_action_emails, incoming_emails")
        for statement, arguments in (
            (rows.NEXT, [ids[0], 100, 200]),
            (rows.KEEP_WHY, [list(range(200)), ["gone"] * 200]),
            (rows.LEFT_OUT, [ids[1], 100]),
            (rows.FORGET, [ids[1], False, 5_000]),
            (operators.RETRY_MANY, [ids, ["failed"], "olga"]),
            (operators.SETTLE_MANY, [ids, "olga", "spam", False, False]),
        ):
            found = await connection.fetch(f"EXPLAIN {statement}", *arguments)
            plan = "\n".join(row[0] for row in found)
            assert "Seq Scan on bulk_action_emails" not in plan, f"{statement}\n{plan}"
            assert "Seq Scan on incoming_emails" not in plan, f"{statement}\n{plan}"
