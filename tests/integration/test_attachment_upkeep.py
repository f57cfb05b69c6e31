"""What operators do about the archive, by the command and on a real store."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from click.testing import CliRunner, Result
from support import make_settings

from app.api.attachment_metrics import AttachmentCounts
from app.attachments import enrolling, removing, transitions, upkeep
from app.attachments.contents import remove_unless_needed, unreferenced
from app.attachments.counts import COUNT, LAG, find_lag
from app.attachments.reasons import Reason
from app.attachments.store import AttachmentStore, storage_key
from app.attachments.upkeep import Damage, Tally
from app.chores_of import chores_of
from app.cli.main import main
from app.desk.figures import Lookout
from app.jobs.chore_runner import Chores
from app.models.email_attachment import AttachmentState

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(minutes=5)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
IN_AN_HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> AttachmentStore:
    return AttachmentStore.from_url((tmp_path / "store").as_uri())


def on_disk(store: AttachmentStore, sha256: str) -> Path:
    return Path(store.url.removeprefix("file://")) / storage_key(sha256)


async def add_email(pool: Pool, files: int, **columns: Any) -> UUID:
    """Store an email with so many files, which nobody has asked for yet."""
    values = {
        "from_email": "erika@example.com",
        "attachment_urls": json.dumps(
            [{"url": f"https://example.com/{number}"} for number in range(files)]
        ),
        **columns,
    }
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(values)}) VALUES ({places}) RETURNING id",
        *values.values(),
    )
    return email_id


async def add(pool: Pool, store: AttachmentStore, folder: Path, *contents: bytes | None) -> UUID:
    """Store an email whose files have these contents; None: it failed."""
    email_id = await add_email(pool, len(contents))
    await enrolling.enrol(pool, [email_id], most=100)
    claimed = await transitions.claim(pool, limit=100, lease=LEASE)
    for file in claimed:
        content = contents[int(file.url.rpartition("/")[2])]
        if content is None:
            await transitions.give_up(pool, file, AttachmentState.FAILED, reason=Reason.GONE)
            continue
        sha256, path = hashlib.sha256(content).hexdigest(), folder / "fetched"
        path.write_bytes(content)
        await store.put(path, sha256)
        await transitions.keep(
            pool, file, sha256=sha256, size=len(content), content_type="text/plain"
        )
    return email_id


async def states(pool: Pool, email_id: UUID) -> list[str]:
    rows = await pool.fetch(
        "SELECT state FROM email_attachments WHERE email = $1 ORDER BY position", email_id
    )
    return [row["state"] for row in rows]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_files_of_an_email_are_fetched_again_and_what_is_kept_is_left(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> None:
    email_id = await add(pool, store, tmp_path, b"a", None, None)

    async def fetch_again(*position: int) -> int:
        return await upkeep.fetch_again(pool, email_id, *position, most=100)

    assert await fetch_again(1) == 1
    assert await states(pool, email_id) == ["kept", "pending", "failed"]
    assert await fetch_again() == 1
    assert await states(pool, email_id) == ["kept", "pending", "pending"]
    assert await fetch_again(7) == 0


async def test_one_that_is_kept_is_fetched_again_only_if_it_is_damaged(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> None:
    """Its link may be dead by now: bytes that are whole must not be given up for it."""
    email_id = await add(pool, store, tmp_path, b"changes", b"goes", b"whole")
    on_disk(store, sha(b"changes")).write_bytes(b"changeS")
    on_disk(store, sha(b"goes")).unlink()
    again = []
    for position in range(3):
        damaged = await upkeep.find_damaged(pool, email_id, position, open_store=lambda: store)
        again.append(await upkeep.fetch_again(pool, email_id, position, damaged=damaged, most=100))
    assert again == [1, 1, 0]
    assert await states(pool, email_id) == ["pending", "pending", "kept"]


async def test_one_that_has_other_bytes_since_it_was_read_is_not_fetched_again(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> None:
    email_id = await add(pool, store, tmp_path, b"goes")
    on_disk(store, sha(b"goes")).unlink()
    damaged = await upkeep.find_damaged(pool, email_id, 0, open_store=lambda: store)
    await pool.execute("UPDATE email_attachments SET sha256 = $1", sha(b"came"))
    assert await upkeep.fetch_again(pool, email_id, 0, damaged=damaged, most=100) == 0
    assert await upkeep.refetch_damaged(pool, damaged) == 0
    assert await states(pool, email_id) == ["kept"]


async def test_all_that_failed_since_a_time_is_fetched_again(
    pool: Pool, store: AttachmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 2)
    old = await add(pool, store, tmp_path, None)
    await pool.execute("UPDATE email_attachments SET ended_at = $1", LONG_AGO)
    new = await add(pool, store, tmp_path, None, b"x", None, None)
    since = datetime.now(UTC) - IN_AN_HOUR
    assert await upkeep.fetch_failed_since(pool, since) == 3
    assert await states(pool, old) == ["failed"]
    assert await states(pool, new) == ["pending", "kept", "pending", "pending"]
    assert await upkeep.fetch_failed_since(pool, since) == 0


async def test_emails_of_a_time_before_the_archive_get_their_files(
    pool: Pool, store: AttachmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ENROLLED_AT_ONCE", 2)
    done = {"processing_status": "completed"}
    older = await add_email(pool, 1, **done, received_at=LONG_AGO)
    emails = [await add_email(pool, 2, **done, received_at=LONG_AGO + LEASE) for _ in range(5)]
    known = await add(pool, store, tmp_path, b"a")
    await add_email(pool, 1, **done, erased_at=LONG_AGO)
    assert await upkeep.fetch_since(pool, LONG_AGO + LEASE / 2, most=100) == 10
    assert await states(pool, older) == []
    assert [await states(pool, email_id) for email_id in emails] == [["pending"] * 2] * 5
    assert await states(pool, known) == ["kept"]


async def test_verify_finds_what_changed_and_what_went_missing(
    pool: Pool, store: AttachmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 2)
    first = await add(pool, store, tmp_path, b"whole", b"changes", b"goes", b"also whole")
    second = await add(pool, store, tmp_path, b"goes", None)
    tally = Tally()
    assert [one async for one in upkeep.verify(pool, store, tally)] == []
    assert (tally.contents, tally.size) == (4, 26)
    on_disk(store, sha(b"changes")).write_bytes(b"changeS")
    on_disk(store, sha(b"goes")).unlink()
    damaged = {one.sha256: one async for one in upkeep.verify(pool, store, Tally())}
    assert {sha256: one.damage for sha256, one in damaged.items()} == {
        sha(b"changes"): Damage.CHANGED,
        sha(b"goes"): Damage.MISSING,
    }
    assert sorted(damaged[sha(b"goes")].names) == sorted([f"{first}/2", f"{second}/0"])
    assert await upkeep.refetch_damaged(pool, list(damaged.values())) == 3
    assert await states(pool, first) == ["kept", "pending", "pending", "kept"]


async def test_what_no_email_needs_is_found_after_a_while_alone(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> None:
    await add(pool, store, tmp_path, b"needed")
    path = tmp_path / "orphan"
    path.write_bytes(b"orphan")
    await store.put(path, sha(b"orphan"))
    now = datetime.now(UTC)
    assert [one async for one in unreferenced(pool, store, before=now - IN_AN_HOUR)] == []
    found = [one async for one in unreferenced(pool, store, before=now + IN_AN_HOUR)]
    assert [one.sha256 for one in found] == [sha(b"orphan")]
    assert await remove_unless_needed(pool, store, sha(b"orphan"))
    assert not await remove_unless_needed(pool, store, sha(b"needed"))
    assert [one.sha256 async for one in store.contents()] == [sha(b"needed")]


async def test_rows_of_emails_that_are_gone_go(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> None:
    gone = await add(pool, store, tmp_path, b"gone")
    left = await add(pool, store, tmp_path, b"left")
    await pool.execute("DELETE FROM incoming_emails WHERE id = $1", gone)
    assert await upkeep.remove_orphans(pool) == 1
    assert (await states(pool, gone), await states(pool, left)) == ([], ["kept"])
    assert await pool.fetchval("SELECT sha256 FROM attachment_erasures") == sha(b"gone")


async def test_a_move_goes_on_where_it_was_ended(
    pool: Pool, store: AttachmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [f"content {number}".encode() for number in range(6)]
    await add(pool, store, tmp_path, *contents)
    target = AttachmentStore.from_url((tmp_path / "target").as_uri())
    first = Tally()
    moving = upkeep.move(pool, store, target, tmp_path, first)
    put, left = target.put, [3]

    async def put_three(path: Path, sha256: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        await put(path, sha256)

    monkeypatch.setattr(target, "put", put_three)
    with pytest.raises(KeyboardInterrupt):
        [one async for one in moving]
    assert first.copied == 3
    monkeypatch.undo()
    on_disk(store, max(map(sha, contents))).write_bytes(b"damaged")
    again = Tally()
    damaged = [one async for one in upkeep.move(pool, store, target, tmp_path, again)]
    assert [one.sha256 for one in damaged] == [max(map(sha, contents))]
    assert (again.contents, again.copied) == (6, 2)
    moved = {one.sha256 async for one in target.contents()}
    assert moved == set(map(sha, contents)) - {damaged[0].sha256}


async def test_metrics_and_overview_count_files_by_state_bytes_and_lag(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> None:
    await add(pool, store, tmp_path, b"12345", b"123", None)
    await add_email(pool, 1)
    late = await add_email(pool, 2)
    await enrolling.enrol(pool, [late], most=100)
    await pool.execute(
        "UPDATE email_attachments SET next_attempt_at = now() - position * interval '1 h'"
        " WHERE state = 'pending'"
    )
    counts = AttachmentCounts(pool, are_fetched=True)
    samples = {
        (sample.name.removeprefix("mailroom_attachment_"), *sample.labels.values()): sample.value
        for family in await counts.look()
        for sample in family.samples
    }
    await counts.close()
    assert 3600 <= samples.pop(("lag_seconds",)) < 4000
    assert samples == {
        ("files", "pending"): 2,
        ("files", "kept"): 2,
        ("files", "skipped"): 0,
        ("files", "failed"): 1,
        ("files", "flagged"): 0,
        ("kept_bytes",): 8,
    }
    files = (await Lookout(pool).look()).files
    assert (files.pending, files.failed_today, files.flagged_today) == (2, 1, 0)
    assert files.lag >= IN_AN_HOUR
    # Nor is what nobody is to fetch any more.
    off = AttachmentCounts(pool, are_fetched=False)
    assert 0.0 in [
        sample.value
        for family in await off.look()
        for sample in family.samples
        if sample.name == "mailroom_attachment_lag_seconds"
    ]
    await off.close()
    assert (await Lookout(pool, are_files_fetched=False).look()).files.lag == timedelta(0)
    # What is being fetched is not late.
    await transitions.claim(pool, limit=2, lease=LEASE)
    assert await find_lag(pool) == timedelta(0)


def test_what_a_killed_writer_left_in_a_folder_is_removed(
    store: AttachmentStore, tmp_path: Path
) -> None:
    half = on_disk(store, sha(b"half"))
    half.parent.mkdir()
    half.write_bytes(b"half")
    staged = half.with_name(f"{half.name}#1")
    staged.write_bytes(b"ha")
    now = datetime.now(UTC)
    assert store.remove_leftovers(now - IN_AN_HOUR) == 0
    assert store.remove_leftovers(now + IN_AN_HOUR, dry_run=True) == 1
    assert staged.exists()
    assert store.remove_leftovers(now + IN_AN_HOUR) == 1
    assert not staged.exists()
    assert half.exists()


async def test_workers_remove_it_by_themselves_after_a_day(
    pool: Pool, store: AttachmentStore
) -> None:
    old, new = (on_disk(store, sha(content)) for content in (b"old", b"new"))
    for path, age in ((old, 86_500), (new, 86_300)):
        path.parent.mkdir()
        staged = path.with_name(f"{path.name}#1")
        staged.touch()
        os.utime(staged, times=(time.time() - age,) * 2)
    [chore] = [
        chore
        for chore in chores_of(make_settings(attachment_store=store.url))
        if chore.name == "attachment-leftovers"
    ]
    chores = Chores([chore], pool=pool, leases=pool)
    assert await chores.run_now(chore.name) == "1 half-written files removed from the store"
    assert [len(list(path.parent.iterdir())) for path in (old, new)] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fetch"], "say which"),
        (["fetch", "--since", "yesterday"], "has to be a time"),
        (["fetch", "x"], "neither ID nor ID/POSITION"),
        (["move"], "say --to URL or --from URL"),
        (["move", "--to", "ftp://x/y"], "MAILROOM_ATTACHMENT_STORE"),
        (["list", "--state", "lost"], "lost"),
    ],
)
def test_what_is_not_clear_is_refused(arguments: list[str], sentence: str) -> None:
    ended: Result = CliRunner().invoke(main, ["attachments", *arguments])
    assert ended.exit_code != 0
    assert sentence in ended.output


PLANS: dict[str, tuple[str, Callable[[UUID], list[object]], str]] = {
    "claim": (transitions.CLAIM, lambda _: [8, [], LEASE], "ix_email_attachments_due"),
    "extend": (transitions.EXTEND, lambda id_: [[id_], [id_], LEASE], "email_attachments_pkey"),
    "keep": (
        transitions.KEEP,
        lambda id_: [id_, id_, "a" * 64, 1, None, "key"],
        "email_attachments_pkey",
    ),
    "intend": (
        transitions.INTEND,
        lambda id_: [id_, id_, "a" * 64, 1, 99],
        "email_attachments_pkey",
    ),
    "postpone": (
        transitions.POSTPONE,
        lambda id_: [id_, id_, None, None, LEASE, True],
        "email_attachments_pkey",
    ),
    "erase": (removing.ERASE, lambda id_: [[id_]], "unique_position"),
    "find": (
        upkeep.FIND,
        lambda _: [["failed", "kept"], None, 100],
        "ix_email_attachments_state",
    ),
    "of email": (upkeep.FIND_OF_EMAIL, lambda id_: [id_, None], "unique_position"),
    "failed": (upkeep.FAILED_SINCE, lambda _: [LONG_AGO, 100], "ix_email_attachments_state"),
    "kept": (upkeep.KEPT_AFTER, lambda _: ["", 500], "ix_email_attachments_sha256"),
    "count": (COUNT, lambda _: [["kept", "failed"], None, None], "ix_email_attachments_state"),
    "lag": (LAG, lambda _: [], "ix_email_attachments_due"),
    "contents": (upkeep.FILES_OF_CONTENT, lambda _: ["a" * 64], "ix_email_attachments_sha256"),
}


async def test_no_statement_reads_the_whole_table(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO email_attachments (email, position, url, state, sha256, size, ended_at,"
        " next_attempt_at)"
        " SELECT gen_random_uuid(), 0, 'https://example.com/' || n,"
        " CASE WHEN n % 1000 = 0 THEN 'pending' WHEN n % 100 = 1 THEN 'failed' ELSE 'kept' END,"
        " CASE WHEN n % 100 > 1 THEN encode(sha256(n::text::bytea), 'hex') END, 5,"
        " CASE WHEN n % 1000 > 0 THEN now() - n * interval '1 s' END, now()"
        " FROM generate_series(1, 20000) AS n"
    )
    await pool.execute("VACUUM ANALYZE email_attachments")
    some_id = await pool.fetchval("SELECT id FROM email_attachments LIMIT 1")
    for name, (statement, arguments, index) in PLANS.items():
        async with pool.acquire() as connection:
            for kind in ("force_custom_plan", "force_generic_plan"):
                await connection.execute(f"SET plan_cache_mode = {kind}")
                lines = await connection.fetch(f"EXPLAIN {statement}", *arguments(some_id))
                plan = "\n".join(line[0] for line in lines)
                assert index in plan, f"{name}, {kind}:\n{plan}"
                assert "Seq Scan on email_attachments" not in plan, f"{name}, {kind}:\n{plan}"
