"""What is old enough goes, with all that belongs to it, and nothing else does."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic import ValidationError
from support import WAIT_SECONDS, Services, make_settings

from app.attachments.contents import remove_erased
from app.attachments.store import AttachmentStore, storage_key
from app.chores_of import chores_of
from app.jobs.chore_runner import Chores
from app.jobs.chores import ChoreContext
from app.jobs.story import tell_story
from app.jobs.transitions import operators
from app.retention import pace, pruner
from app.retention.pace import Pace
from app.retention.pruner import Pruner, prune_chore, survey, sweeps_of
from app.search.entries import LOCK_NUMBER
from benchmarks.old_emails import fill

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

DAY = timedelta(days=1)
# As whoever writes the index of words has it.
LOCK_NAMED = f"SELECT pg_advisory_lock({LOCK_NUMBER})"
UNLOCK = f"SELECT pg_advisory_unlock({LOCK_NUMBER})"
IS_WAITED_FOR = """
SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
TEXTS = ("raw_body_html", "raw_body_text", "cleaned_body", "raw_payload", "original_body")
EVERYTHING = {
    "keep_completed_days": 30,
    "keep_failed_days": 60,
    "keep_bodies_days": 10,
    "keep_attachments_days": 5,
    "keep_events_days": 3,
}


async def add_email(pool: Pool, days_ago: float, status: str = "completed", **more: Any) -> UUID:
    """Store an email that ended so many days ago."""
    ended = datetime.now(UTC) - days_ago * DAY
    values = {
        "from_email": "erika@example.com",
        "processing_status": status,
        "completed_at": ended if status in ("completed", "failed") else None,
        "received_at": ended - DAY,
        **dict.fromkeys(TEXTS[:3], "Guten Tag"),
        "raw_payload": '{"subject": "Guten Tag"}',
        "original_body": b"{}",
        "idempotency_key": uuid4().hex,
        **more,
    }
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(values)}) VALUES ({places}) RETURNING id",
        *values.values(),
    )
    await pool.execute(
        "INSERT INTO email_events (email, at, kind, text) VALUES ($1, $2, 'delivery', 'mended')",
        *(email_id, ended),
    )
    return email_id


async def add_file(pool: Pool, email_id: UUID, content: bytes | None, days_ago: float = 0) -> str:
    """Store a file of an email, kept or still pending. Returns its hash."""
    sha256 = hashlib.sha256(content or b"").hexdigest()
    await pool.execute(
        "INSERT INTO email_attachments (email, position, state, sha256, storage_key, ended_at)"
        " SELECT $1, count(*), $2, $3::text, $3::text, $4 FROM email_attachments WHERE email = $1",
        *(email_id, "pending" if content is None else "kept"),
        sha256 if content is not None else None,
        datetime.now(UTC) - days_ago * DAY,
    )
    return sha256


async def prune(pool: Pool, **settings: float) -> str | None:
    """Run the chore by these settings."""
    chore = prune_chore(make_settings(**settings))
    return await Chores([chore], pool=pool, leases=pool).run_now(chore.name)


async def ids(pool: Pool) -> set[UUID]:
    return {row["id"] for row in await pool.fetch("SELECT id FROM incoming_emails")}


async def count(pool: Pool, table: str) -> int:
    number: int = await pool.fetchval(f"SELECT count(*) FROM {table}")
    return number


async def test_everything_is_kept_unless_it_is_said(pool: Pool) -> None:
    def names(**settings: float) -> set[str]:
        return {chore.name for chore in chores_of(make_settings(**settings))}

    assert (make_settings().prunes, sweeps_of(make_settings(), datetime.now(UTC))) == (False, [])
    assert names(keep_events_days=1) - names() == {"prune"}


def test_a_row_is_kept_for_as_long_as_its_keys_are_needed() -> None:
    with pytest.raises(ValidationError, match="MAILROOM_KEEP_FAILED_DAYS has to be at least 3:"):
        make_settings(keep_failed_days=2.9)
    with pytest.raises(ValidationError, match="at least 20:"):
        make_settings(keep_completed_days=10, signature_max_age_seconds=10 * 86_400)
    assert make_settings(keep_completed_days=3, keep_bodies_days=0.1).prunes


async def test_what_is_old_enough_goes_with_all_that_belongs_to_it(pool: Pool) -> None:
    completed, failed = await add_email(pool, 31), await add_email(pool, 61, "failed")
    young = {await add_email(pool, 29), await add_email(pool, 59, "failed")}
    for email_id in (completed, failed, *young):
        await add_file(pool, email_id, email_id.bytes)
    await pool.execute(
        "INSERT INTO quarantined_webhooks (id, reason, body) VALUES ($1, 'invalid', '')", failed
    )
    settings = {name: EVERYTHING[name] for name in ("keep_completed_days", "keep_failed_days")}
    assert await prune(pool, **settings) == "removed: 1 completed emails, 1 failed emails"
    assert await ids(pool) == young
    for table, number in (
        *(("email_attachments", 2), ("email_events", 2), ("attachment_erasures", 2)),
        ("quarantined_webhooks", 0),
    ):
        assert (table, await count(pool, table)) == (table, number)
    assert await prune(pool, **settings) is None
    assert "1 completed emails" in await pool.fetchval("SELECT last_note FROM chores")


async def test_bytes_go_unless_another_email_has_the_same(pool: Pool, tmp_path: Path) -> None:
    store = AttachmentStore.from_url((tmp_path / "store").as_uri())
    old, young = await add_email(pool, 31), await add_email(pool, 1)
    owners = {b"both": (old, young), b"old": (old,), b"young": (young,)}
    for content, emails in owners.items():
        (tmp_path / "file").write_bytes(content)
        for email_id in emails:
            sha256 = await add_file(pool, email_id, content, 1)
        await store.put(tmp_path / "file", sha256)
    await prune(pool, keep_completed_days=30)
    assert await remove_erased(pool, store) == 1
    there = {
        content: (tmp_path / "store" / storage_key(hashlib.sha256(content).hexdigest())).exists()
        for content in owners
    }
    assert there == {b"both": True, b"old": False, b"young": True}


@pytest.mark.parametrize("name", ["keep_completed_days", "keep_bodies_days"])
async def test_what_is_in_work_or_held_back_stays_until_it_is_free(pool: Pool, name: str) -> None:
    at_work = [await add_email(pool, 99, state) for state in ("received", "queued", "processing")]
    pending = await add_email(pool, 99, sync_status="pending")
    with_file = await add_email(pool, 98)
    await add_file(pool, with_file, None)
    locked = await add_email(pool, 97)
    free = await add_email(pool, 96, sync_status="failed")

    async def left() -> set[UUID]:
        having = "SELECT id FROM incoming_emails WHERE raw_body_text IS NOT NULL"
        return {row["id"] for row in await pool.fetch(having)}

    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM incoming_emails WHERE id = $1 FOR SHARE", locked)
        assert "1 " in (await prune(pool, **{name: 3}) or "")
    assert await left() == {*at_work, pending, with_file, locked}
    await pool.execute("UPDATE incoming_emails SET sync_status = 'synced'")
    await pool.execute("UPDATE email_attachments SET state = 'failed'")
    assert "3 " in (await prune(pool, **{name: 3}) or "")
    assert await left() == set(at_work)
    assert free not in await left()


async def test_of_an_email_whose_texts_go_the_rest_stays_and_it_is_not_retried(pool: Pool) -> None:
    email_id = await add_email(pool, 11, "failed", subject="Päckchen", extracted_data='{"a": 1}')
    young, erased = await add_email(pool, 9), await add_email(pool, 11, erased_at=datetime.now(UTC))
    assert await prune(pool, keep_bodies_days=10) == "removed: 1 texts of failed emails"
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert [row[name] for name in TEXTS] == [None] * len(TEXTS)
    assert (row["subject"], row["extracted_data"]) == ("Päckchen", '{"a": 1}')
    assert row["bodies_removed_at"] is not None and row["idempotency_key"]
    assert await count(pool, "email_events") == 3
    others = "SELECT raw_body_text FROM incoming_emails WHERE id = ANY($1::uuid[])"
    rows = await pool.fetch(others, [young, erased])
    assert [other["raw_body_text"] for other in rows] == ["Guten Tag", "Guten Tag"]
    assert not await operators.retry(pool, email_id, by="olga", force=True)
    story = await tell_story(pool, email_id, make_settings())
    assert story is not None
    assert any("its texts were removed" in event.what for event in story.events)


async def test_files_go_and_say_why(pool: Pool, tmp_path: Path) -> None:
    store = AttachmentStore.from_url((tmp_path / "store").as_uri())
    email_id, at_work = await add_email(pool, 9), await add_email(pool, 9, "queued")
    old = await add_file(pool, email_id, b"old", 6)
    young = await add_file(pool, email_id, b"young", 4)
    of_work = await add_file(pool, at_work, b"of one in work", 6)
    for content in (b"old", b"young", b"of one in work"):
        (tmp_path / "file").write_bytes(content)
        await store.put(tmp_path / "file", hashlib.sha256(content).hexdigest())
    assert await prune(pool, keep_attachments_days=5) == "removed: 1 files of emails"
    rows = await pool.fetch("SELECT state, reason, sha256 FROM email_attachments ORDER BY sha256")
    assert {tuple(row) for row in rows} == {
        ("skipped", "expired", None),
        ("kept", None, young),
        ("kept", None, of_work),
    }
    assert await remove_erased(pool, store) == 1
    assert not (tmp_path / "store" / storage_key(old)).exists()
    story = await tell_story(pool, email_id, make_settings())
    assert story is not None
    assert any("MAILROOM_KEEP_ATTACHMENTS_DAYS" in event.what for event in story.events)


async def test_entries_of_histories_go(pool: Pool) -> None:
    for days_ago in (5, 4, 2, 1):
        await add_email(pool, days_ago)
    assert await prune(pool, keep_events_days=3) == "removed: 2 entries of histories"
    assert await count(pool, "email_events") == 2
    assert await count(pool, "incoming_emails") == 4


async def test_what_the_receiver_was_told_goes_and_what_it_could_not_be_told_stays(
    pool: Pool,
) -> None:
    for days_ago, status in ((4, "synced"), (2, "synced"), (4, "failed"), (4, "pending")):
        at = datetime.now(UTC) - days_ago * DAY
        await pool.execute(
            "INSERT INTO sync_events (kind, email, created_at, synced_at, sync_status)"
            " VALUES ('email.erased', gen_random_uuid(), $1, $2, $3)",
            *(at, at if status == "synced" else None, status),
        )
    assert await prune(pool, keep_events_days=3) == "removed: 1 events that the receiver has"
    left = await pool.fetch("SELECT sync_status FROM sync_events ORDER BY 1")
    assert [row["sync_status"] for row in left] == ["failed", "pending", "synced"]


def test_the_pace_follows_how_long_a_batch_takes() -> None:
    calm = Pace()
    for _ in range(40):
        assert calm.removed(calm.rows, 0.01) == pytest.approx(0.01 * pace.RESTS_PER_BATCH)
    assert calm.rows == pace.MOST_ROWS
    # Twice as long as it may: fewer rows, and more rest for it.
    rest = calm.removed(calm.rows, 2 * pace.LONGEST_BATCH_SECONDS)
    assert calm.rows == pace.MOST_ROWS // 2
    assert rest == pytest.approx(2 * pace.LONGEST_BATCH_SECONDS * 2 * pace.RESTS_PER_BATCH)
    for _ in range(40):
        longest = calm.removed(calm.rows, 10.0)
    assert (calm.rows, longest) == (pace.LEAST_ROWS, 10.0 * pace.MOST_RESTS_PER_BATCH)


async def test_what_a_run_tells_is_what_was_counted_before(pool: Pool) -> None:
    for days_ago in (1, 4, 6, 11, 31, 61):
        for status in ("completed", "failed"):
            email_id = await add_email(pool, days_ago, status)
            await add_file(pool, email_id, email_id.bytes, days_ago)
    await add_email(pool, 40, sync_status="pending")
    sweeps = sweeps_of(make_settings(**EVERYTHING), datetime.now(UTC))
    counted = {sweep.what: (found.free, found.held) for sweep, found in await survey(pool, sweeps)}
    assert counted == {
        "completed emails": (2, 1),
        "failed emails": (1, 0),
        "texts of completed emails": (1, 0),
        "texts of failed emails": (2, 0),
        # Those of whole emails are among them here.
        "files of emails": (8, 0),
        "entries of histories": (11, 0),
        "events that the receiver has": (0, 0),
    }
    assert await prune(pool, **EVERYTHING) == (
        "removed: 2 completed emails, 1 failed emails, 1 texts of completed emails, "
        "2 texts of failed emails, 5 files of emails, 8 entries of histories"
    )


async def test_a_look_begins_where_the_last_ended_and_once_a_week_at_the_oldest(pool: Pool) -> None:
    await prune(pool, keep_completed_days=30)
    restored = await add_email(pool, 50)
    assert await prune(pool, keep_completed_days=30) is None
    await pool.execute("UPDATE retention_marks SET looked_at_all_at = now() - interval '8 days'")
    assert await prune(pool, keep_completed_days=30) == "removed: 1 completed emails"
    assert restored not in await ids(pool)


async def test_many_go_batch_by_batch_and_a_stop_comes_between(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner, "PAGE", 20)
    monkeypatch.setattr(pace, "LEAST_ROWS", 5)
    monkeypatch.setattr(pace, "MOST_ROWS", 5)
    # Very many end together.
    await pool.execute(
        "INSERT INTO incoming_emails (from_email, processing_status, completed_at)"
        " SELECT 'erika@example.com', 'completed', now() - n % 2 * interval '1 day'"
        " - interval '50 days' FROM generate_series(1, 100) AS n"
    )
    stopping, notes = asyncio.Event(), []

    async def note(text: str) -> None:
        notes.append(text)
        stopping.set()

    monkeypatch.setattr(pruner, "NOTE_EVERY_SECONDS", 0.0)
    sweeps = sweeps_of(make_settings(keep_completed_days=30), datetime.now(UTC))
    with pytest.raises(asyncio.CancelledError):
        await Pruner(ChoreContext(pool, stopping, note)).run(sweeps)
    assert notes == [
        "at the completed emails now; removed: 5 completed emails",
        "ended between; removed: 5 completed emails",
    ]
    assert await count(pool, "incoming_emails") == 95
    assert await prune(pool, keep_completed_days=30) == "removed: 95 completed emails"


async def test_a_wait_for_the_index_of_words_does_not_count_as_work(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[float] = []

    def removed(_: Pace, rows: int, seconds: float) -> float:
        took.append(seconds)
        return 0.0

    monkeypatch.setattr(Pace, "removed", removed)
    for days_ago in (91, 92):
        await add_email(pool, days_ago)
    async with pool.acquire() as connection:
        await connection.execute(LOCK_NAMED)
        pruning = asyncio.create_task(prune(pool, keep_completed_days=30))
        async with asyncio.timeout(WAIT_SECONDS):
            while not await connection.fetchval(IS_WAITED_FOR):  # noqa: ASYNC110 - of the server
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        released_at = time.monotonic()
        await connection.execute(UNLOCK)
    assert await pruning == "removed: 2 completed emails"
    assert len(took) == 1
    assert took[0] <= time.monotonic() - released_at


async def test_who_is_locked_out_of_a_table_gives_up_after_a_while(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner, "IN_VAIN_AT_MOST", 2)
    monkeypatch.setattr(pruner, "LIMITS", "SET LOCAL lock_timeout = '10ms'")
    for email_id in (await add_email(pool, 50), await add_email(pool, 51)):
        await add_file(pool, email_id, email_id.bytes, 1)
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE email_events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await prune(pool, keep_completed_days=30)
    chore = await pool.fetchrow("SELECT last_error, failures FROM chores")
    assert tuple(chore) == ("LockNotAvailableError", 1)
    assert await count(pool, "email_attachments") == 2
    assert await prune(pool, keep_completed_days=30) == "removed: 2 completed emails"


async def test_one_that_is_killed_leaves_nothing_half_removed(
    services: Services, pool: Pool
) -> None:
    email_id = await add_email(pool, 50)
    await add_file(pool, email_id, b"file", 1)
    services.environment["MAILROOM_KEEP_COMPLETED_DAYS"] = "30"
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE email_events IN ACCESS EXCLUSIVE MODE")
        running = services.start("mailroom", "prune")
        # Between the files and the row.
        waiting = "SELECT FROM pg_locks WHERE relation = 'email_events'::regclass AND NOT granted"
        async with asyncio.timeout(WAIT_SECONDS):
            while not await pool.fetch(waiting):
                assert running.poll() is None, services.log()
                await asyncio.sleep(0.02)
        services.kill_group(running)
    for table in ("incoming_emails", "email_attachments", "email_events"):
        assert (table, await count(pool, table)) == (table, 1)
    assert await count(pool, "attachment_erasures") == 0
    second = services.run("mailroom", "prune")
    assert second.returncode == 1
    assert "prune is being done by" in second.stderr
    # Its lease runs out.
    await pool.execute("UPDATE chores SET lease_expires_at = now()")
    services.environment["MAILROOM_PRUNE_EVERY_SECONDS"] = "1"
    services.start_worker()
    async with asyncio.timeout(WAIT_SECONDS):
        while await count(pool, "incoming_emails"):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)
    for table in ("incoming_emails", "email_attachments", "email_events"):
        assert (table, await count(pool, table)) == (table, 0)


async def test_the_command_counts_and_removes(services: Services, pool: Pool) -> None:
    everything = services.run("mailroom", "prune", "--dry-run")
    assert everything.returncode == 1
    assert "everything is kept: set MAILROOM_KEEP_COMPLETED_DAYS" in everything.stderr
    await add_email(pool, 50)
    await add_email(pool, 50, sync_status="pending")
    services.environment["MAILROOM_KEEP_COMPLETED_DAYS"] = "30"
    counted = services.run("mailroom", "prune", "--dry-run")
    assert "1 completed emails from before 20" in counted.stdout
    assert "would be removed; 1 more wait for their delivery or files" in counted.stdout
    assert await count(pool, "incoming_emails") == 2
    assert services.run("mailroom", "prune").stdout == "removed: 1 completed emails\n"
    assert services.run("mailroom", "prune").stdout == "nothing was due\n"


async def test_of_many_the_old_ones_go_with_their_files_and_histories(
    pool: Pool, database_url: str
) -> None:
    day = 86_400
    fill(database_url, 1_000, run="old", size=1_500, oldest=400 * day, youngest=91 * day)
    fill(database_url, 500, run="young", size=1_500, oldest=89 * day, youngest=day)
    assert await prune(pool, keep_completed_days=90) == "removed: 1,000 completed emails"
    for table, left in (
        *(("incoming_emails", 500), ("email_attachments", 50), ("email_events", 50)),
        ("attachment_erasures", 100),
    ):
        assert (table, await count(pool, table)) == (table, left)
    oldest = await pool.fetchval("SELECT now() - min(completed_at) FROM incoming_emails")
    assert oldest < 90 * DAY


async def test_entries_of_the_audit_log_go_by_their_age_alone(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO audit_entries (at, act) VALUES (now() - interval '4 days', 'old'),"
        " (now() - interval '2 days', 'new')"
    )
    assert await prune(pool) is None
    assert await prune(pool, keep_audit_days=3) == "removed: 1 entries of the audit log"
    assert [row["act"] for row in await pool.fetch("SELECT act FROM audit_entries")] == ["new"]


async def test_bulk_actions_go_as_entries_of_the_audit_log_do_once_they_are_over(
    pool: Pool,
) -> None:
    for state, asked, worked, has_lines in (
        ("ended", 4, 4, False),
        ("ended", 4, 4, True),
        ("ended", 4, 1, False),
        ("stopped", 4, 4, False),
        ("running", 4, 4, False),
        ("ended", 2, 2, False),
    ):
        name = f"{state} {asked} {worked} {has_lines}"
        action_id = await pool.fetchval(
            "INSERT INTO bulk_actions (action, asked_by, state, asked_at, worked_at)"
            " VALUES ('retry', $1, $2, now() - $3::interval, now() - $4::interval) RETURNING id",
            *(name, state, asked * DAY, worked * DAY),
        )
        if has_lines:
            await pool.execute(
                "INSERT INTO bulk_action_emails (action, email, why) VALUES"
                " ($1, gen_random_uuid(), 'queued')",
                action_id,
            )
    assert await prune(pool) is None
    counts = await survey(pool, sweeps_of(make_settings(keep_audit_days=3), datetime.now(UTC)))
    assert [(sweep.name, count.free, count.held) for sweep, count in counts] == [
        ("audit", 0, 0),
        ("bulk", 2, 3),
    ]
    assert await prune(pool, keep_audit_days=3) == "removed: 2 bulk actions"
    left = {row["asked_by"] for row in await pool.fetch("SELECT asked_by FROM bulk_actions")}
    assert left == {"ended 4 4 True", "ended 4 1 False", "running 4 4 False", "ended 2 2 False"}
    # What held them back is over by now.
    await pool.execute("DELETE FROM bulk_action_emails")
    await pool.execute("UPDATE bulk_actions SET worked_at = asked_at, state = 'ended'")
    assert await prune(pool, keep_audit_days=3) == "removed: 3 bulk actions"
    assert await pool.fetchval("SELECT asked_by FROM bulk_actions") == "ended 2 2 False"
