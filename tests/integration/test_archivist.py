"""The archivist: files of a fake Zendesk on their way into a real store, and what goes wrong."""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from fake_zendesk import Asked, FakeZendesk, answer, begin
from support import WAIT_SECONDS, make_settings

import app.attachments.archivist as archivist_module
from app.attachments import enrolling, removing, transitions
from app.attachments.archivist import Archivist, Limits
from app.attachments.contents import remove_erased, remove_unless_needed
from app.attachments.fetcher import Fetched, Fetcher, NotFetched, Wanted
from app.attachments.reasons import Reason
from app.attachments.store import AttachmentStore, StoreError
from app.attachments.transitions import TRIES_WAITED_FOR
from app.jobs.archive import ArchiveThread

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LIMITS = Limits(concurrency=4, lease=timedelta(minutes=5), max_tries=3, max_email_bytes=1_000_000)


@pytest.fixture
def store(tmp_path: Path) -> AttachmentStore:
    return AttachmentStore.from_url((tmp_path / "store").as_uri())


class World:
    """An archivist and what it works with."""

    def __init__(
        self, pool: Pool, store: AttachmentStore, folder: Path, fetcher: Any, limits: Limits
    ) -> None:
        self.pool, self.store, self.folder = pool, store, folder
        self.ended: list[UUID] = []
        self.archivist = Archivist(
            pool, fetcher=fetcher, store=store, folder=folder, limits=limits, ended=self._note
        )

    async def _note(self, email_id: UUID) -> None:
        self.ended.append(email_id)

    async def add(self, *urls: str, size: int | None = None) -> UUID:
        """Store an email with these files."""
        email_id: UUID = await self.pool.fetchval(
            "INSERT INTO incoming_emails (from_email, attachment_urls)"
            " SELECT 'erika@example.com', json_agg(json_build_object('url', url, 'size', $2::int))"
            " FROM unnest($1::text[]) AS url RETURNING id",
            urls,
            size,
        )
        await enrolling.enrol(self.pool, [email_id], most=100)
        return email_id

    async def row(self) -> dict[str, Any]:
        """The one file there is."""
        [row] = await self.rows()
        return row

    async def rows(self) -> list[dict[str, Any]]:
        rows = await self.pool.fetch("SELECT * FROM email_attachments ORDER BY email, position")
        return [dict(row) for row in rows]

    async def all_due(self) -> None:
        await self.pool.execute("UPDATE email_attachments SET next_attempt_at = now()")

    async def until_settled(self) -> None:
        """Try again and again, without the pauses, until nothing is pending."""
        while any(row["state"] == "pending" for row in await self.rows()):
            await self.all_due()
            await self.archivist.run_once()

    def downloads(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
async def world(
    pool: Pool, store: AttachmentStore, zendesk: FakeZendesk, tmp_path: Path
) -> AsyncIterator[World]:
    """An archivist over the fake Zendesk."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    fetcher = Fetcher(make_settings(**zendesk.settings, attachment_max_bytes=2_000_000))
    yield World(pool, store, folder, fetcher, LIMITS)
    await fetcher.aclose()


async def content_of(store: AttachmentStore, sha256: str) -> bytes:
    return b"".join([piece async for piece in store.read(sha256)])


async def test_a_file_is_kept_under_its_hash(world: World, zendesk: FakeZendesk) -> None:
    content = b"%PDF-1.7 " + os.urandom(100_000)
    email_id = await world.add(zendesk.add("bill.pdf", content=content))
    assert await world.archivist.run_once() == 1
    row = await world.row()
    sha256 = hashlib.sha256(content).hexdigest()
    assert (row["state"], row["sha256"], row["size"]) == ("kept", sha256, len(content))
    assert row["storage_key"] == f"{sha256[:2]}/{sha256}"
    assert row["content_type"] == "application/pdf"
    assert row["fetched_at"] is not None
    assert (row["token"], row["reason"]) == (None, None)
    assert await content_of(world.store, sha256) == content
    assert world.downloads() == []
    assert world.ended == [email_id]


async def test_the_same_bytes_of_many_emails_are_kept_once(
    world: World, zendesk: FakeZendesk
) -> None:
    for number in range(4):
        await world.add(zendesk.add(f"logo{number}.png", content=b"\x89PNG the same"))
    await world.archivist.run_once()
    assert {row["state"] for row in await world.rows()} == {"kept"}
    assert len([content async for content in world.store.contents()]) == 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - the archivist tells nobody
            await asyncio.sleep(0.01)


def status(number: int, **headers: str) -> Any:
    async def respond(asked: Asked, writer: asyncio.StreamWriter) -> None:
        answer(writer, number, b"", **headers)

    return respond


async def short(asked: Asked, writer: asyncio.StreamWriter) -> None:
    begin(writer, 200, content_length="100")
    writer.write(b"not so many")
    writer.close()


@pytest.mark.parametrize(
    ("fields", "state", "reason", "tries"),
    [
        ({"account": status(404)}, "failed", Reason.GONE, 1),
        ({"account": status(500)}, "failed", Reason.UNREACHABLE, 3),
        ({"cdn": short}, "failed", Reason.INCOMPLETE, 3),
        ({"content": b"x" * 2_000_001}, "skipped", Reason.TOO_LARGE, 1),
        ({"redirect": "https://evil.example.com/"}, "skipped", Reason.HOST_NOT_ALLOWED, 1),
    ],
)
async def test_each_file_ends_with_a_reason(
    world: World,
    zendesk: FakeZendesk,
    fields: dict[str, Any],
    state: str,
    reason: Reason,
    tries: int,
) -> None:
    email_id = await world.add(zendesk.add("a", **fields))
    await world.until_settled()
    row = await world.row()
    assert (row["state"], row["reason"], row["tries"]) == (state, reason, tries)
    assert row["ended_at"] is not None
    assert row["sha256"] is None
    # When it is waited for no longer, and when it ends.
    assert world.ended == [email_id] * (1 + (tries > TRIES_WAITED_FOR))
    assert world.downloads() == []
    assert [content async for content in world.store.contents()] == []


async def test_a_failed_try_is_made_again_after_a_pause(world: World, zendesk: FakeZendesk) -> None:
    zendesk.add("a", content=b"at last", account=status(500))
    email_id = await world.add(f"{zendesk.account_url}/attachments/token/a/?name=a")
    await world.archivist.run_once()
    first = await world.row()
    assert (first["state"], first["reason"]) == ("pending", "unreachable")
    assert world.ended == []
    assert await world.archivist.run_once() == 0
    pauses = []
    for _ in range(2):
        pauses.append(
            await world.pool.fetchval("SELECT next_attempt_at - now() FROM email_attachments")
        )
        if len(pauses) == 2:
            # For what failed twice, though it is tried on.
            assert world.ended == [email_id]
            zendesk.rows["a"].account = None
        await world.all_due()
        await world.archivist.run_once()
    assert pauses[1] > pauses[0] > timedelta(seconds=3)
    row = await world.row()
    assert (row["state"], row["reason"], row["tries"]) == ("kept", None, 3)


async def test_a_host_that_asks_to_wait_is_left_alone_at_no_cost_of_tries(
    world: World, zendesk: FakeZendesk
) -> None:
    busy = zendesk.add("busy", account=status(429, retry_after="120"))
    await world.add(busy, zendesk.add("b", content=b"b"))
    archivist = world.archivist
    archivist._limits = Limits(1, LIMITS.lease, LIMITS.max_tries, LIMITS.max_email_bytes)
    await archivist.run_once()
    rows = await world.rows()
    assert [row["state"] for row in rows] == ["pending", "pending"]
    assert (rows[0]["reason"], rows[0]["tries"]) == ("busy", 0)
    assert rows[0]["next_attempt_at"] - rows[1]["next_attempt_at"] > timedelta(seconds=100)
    # The other one is due and of the same host: it is not even claimed.
    assert await archivist.run_once() == 0
    archivist._resting.clear()
    asked = len(zendesk.files_asked("localhost"))
    assert await archivist.run_once() == 1
    assert len(zendesk.files_asked("localhost")) == asked


async def test_bytes_beyond_those_of_one_email_are_skipped(
    world: World, zendesk: FakeZendesk
) -> None:
    for claimed in (None, 600_000):
        urls = [
            zendesk.add(f"{claimed}-{number}", content=os.urandom(600_000)) for number in range(2)
        ]
        await world.add(*urls, size=claimed)
    world.archivist._limits = Limits(1, LIMITS.lease, LIMITS.max_tries, LIMITS.max_email_bytes)
    while await world.archivist.run_once():
        pass
    rows = await world.rows()
    assert [row["state"] for row in rows] == ["kept", "skipped"] * 2
    assert rows[1]["reason"] == rows[3]["reason"] == "too_large_together"
    # What says that it is too large is not even asked for.
    assert len(zendesk.files_asked("localhost")) == 3


async def test_a_store_that_is_away_costs_a_file_no_try(
    world: World, zendesk: FakeZendesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreError("the store cannot write (it is away)")

    await world.add(zendesk.add("a", content=b"a"), zendesk.add("b", content=b"b"))
    monkeypatch.setattr(world.store, "put", away)
    await world.archivist.run_once()
    for row in await world.rows():
        assert (row["state"], row["reason"], row["tries"]) == ("pending", "store_away", 0)
        assert row["detail"] == "the store cannot write (it is away)"
    assert world.downloads() == []
    # However many fail together, it is one pause.
    assert world.archivist._rests_until - time.monotonic() <= archivist_module.FIRST_PAUSE_SECONDS
    # Nothing is fetched that could not be stored.
    await world.all_due()
    assert await world.archivist.run_once() == 0
    monkeypatch.undo()
    world.archivist._rests_until = 0.0
    assert await world.archivist.run_once() == 2
    assert {row["state"] for row in await world.rows()} == {"kept"}


async def test_a_disk_of_the_store_that_is_full_costs_a_file_no_try(
    world: World, zendesk: FakeZendesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have room for a few bytes, and not for the file."""
    put = world.store.put

    async def full(path: Path, sha256: str) -> None:
        if path.stat().st_size > 32:
            raise StoreError("the store cannot write (No space left on device)")
        await put(path, sha256)

    await world.add(zendesk.add("a", content=b"a" * 100))
    monkeypatch.setattr(world.store, "put", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 99))
    await world.archivist.run_once()
    row = await world.row()
    assert (row["state"], row["reason"], row["tries"]) == ("pending", "store_away", 0)
    assert world.archivist._rests_until > time.monotonic()


async def test_a_file_that_the_store_never_takes_is_given_up_and_keeps_none_waiting(
    world: World, zendesk: FakeZendesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, refused = world.store.put, hashlib.sha256(b"never").hexdigest()

    async def picky(path: Path, sha256: str) -> None:
        if sha256 == refused:
            raise StoreError("the store cannot write (EntityTooLarge)")
        await put(path, sha256)

    email_id = await world.add(zendesk.add("a", content=b"never"), zendesk.add("b", content=b"b"))
    monkeypatch.setattr(world.store, "put", picky)
    await world.archivist.run_once()
    never, other = await world.rows()
    assert (never["state"], never["reason"], never["tries"]) == ("pending", "store_refused", 1)
    assert other["state"] == "kept"
    assert world.archivist._rests_until == 0.0
    await world.until_settled()
    never, _ = await world.rows()
    assert (never["state"], never["reason"], never["tries"]) == ("failed", "store_refused", 3)
    assert never["detail"] == "the store cannot write (EntityTooLarge)"
    assert never["next_attempt_at"] is not None
    assert set(world.ended) == {email_id}
    assert [content.size async for content in world.store.contents()] == [1]


async def test_files_that_come_at_the_same_time_are_counted_together(
    world: World, zendesk: FakeZendesk
) -> None:
    email_id = await world.add(
        *(zendesk.add(f"{number}.bin", content=os.urandom(400_000)) for number in range(4))
    )
    assert await world.archivist.run_once() == 4
    rows = await world.rows()
    assert sorted(row["state"] for row in rows) == ["kept", "kept", "skipped", "skipped"]
    assert {row["reason"] for row in rows} == {None, "too_large_together"}
    assert world.ended == [email_id] * 4


async def test_a_disk_that_is_full_costs_a_file_no_try(world: World, zendesk: FakeZendesk) -> None:
    await world.add(zendesk.add("a", content=b"a"))
    world.folder.rmdir()
    await world.archivist.run_once()
    row = await world.row()
    assert (row["state"], row["reason"], row["tries"]) == ("pending", "no_room", 0)
    assert row["detail"] == "it cannot be written down here (No such file or directory)"
    # Nothing is fetched that could not be written down.
    await world.all_due()
    assert await world.archivist.run_once() == 0
    world.folder.mkdir()
    world.archivist._rests_until = 0.0
    assert await world.archivist.run_once() == 1
    assert (await world.row())["state"] == "kept"


class Scripted:
    """Fetches by a script, to reach moments that no server can be brought to."""

    def __init__(self) -> None:
        self.fetching: dict[str, asyncio.Event] = {}
        self.content = b"scripted"
        self.begun = asyncio.Event()
        self.error: Exception | None = None

    def hold(self, url: str) -> asyncio.Event:
        """Let the file come only when the event is set."""
        return self.fetching.setdefault(url, asyncio.Event())

    async def fetch(self, wanted: Wanted, folder: Path) -> Fetched | NotFetched:
        self.begun.set()
        if self.error is not None:
            raise self.error
        if wanted.url in self.fetching:
            await self.fetching[wanted.url].wait()
        path = folder / hashlib.sha256(wanted.url.encode()).hexdigest()
        path.write_bytes(self.content)
        sha256 = hashlib.sha256(self.content).hexdigest()
        return Fetched(path, len(self.content), sha256, "text/plain")


@pytest.fixture
async def scripted(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> AsyncIterator[tuple[World, Scripted]]:
    folder = tmp_path / "downloads"
    folder.mkdir()
    fetcher = Scripted()
    world = World(pool, store, folder, fetcher, LIMITS)
    yield world, fetcher
    await world.archivist.close()


async def test_an_error_that_nobody_knows_ends_with_a_reason_too(
    scripted: tuple[World, Scripted],
) -> None:
    world, fetcher = scripted
    fetcher.error = ZeroDivisionError("of all things")
    await world.add("https://example.com/a")
    await world.until_settled()
    row = await world.row()
    assert (row["state"], row["reason"], row["tries"]) == ("failed", "unexpected", 3)
    assert row["detail"] == "ZeroDivisionError"


async def test_a_file_whose_workers_vanish_is_given_up(scripted: tuple[World, Scripted]) -> None:
    world, fetcher = scripted
    await world.add("https://example.com/a")
    for _ in range(LIMITS.max_tries):
        await transitions.claim(world.pool, limit=1, lease=timedelta(0))
    await world.archivist.run_once()
    row = await world.row()
    assert (row["state"], row["reason"]) == ("failed", "worker_vanished")
    assert not fetcher.begun.is_set()


async def test_slow_files_keep_no_others_waiting_and_are_bounded(
    scripted: tuple[World, Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, fetcher = scripted
    monkeypatch.setattr(archivist_module, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(archivist_module, "SLOW_PER_PLACE", 2)
    urls = [f"https://example.com/{number}" for number in range(100)]
    slow = [fetcher.hold(url) for url in urls[:90]]
    await world.add(*urls)
    running = asyncio.create_task(world.archivist.run())
    try:
        # The first eight are in hand; then no more are begun.
        await until(lambda: len(world.archivist._slow) == 2 * LIMITS.concurrency)
        assert world.archivist._free() == 0
        held = await world.pool.fetchval(
            "SELECT count(*) FROM email_attachments WHERE token IS NOT NULL"
        )
        assert held == 2 * LIMITS.concurrency
        for event in slow:
            event.set()
        await until(lambda: len(world.ended) == len(urls))
    finally:
        running.cancel()
    assert {row["state"] for row in await world.rows()} == {"kept"}


async def test_a_worker_that_ends_gives_back_what_it_fetches(
    scripted: tuple[World, Scripted],
) -> None:
    world, fetcher = scripted
    fetcher.hold("https://example.com/a")
    await world.add("https://example.com/a")
    running = asyncio.create_task(world.archivist.run())
    await asyncio.wait_for(fetcher.begun.wait(), WAIT_SECONDS)
    running.cancel()
    await world.archivist.close()
    row = await world.row()
    assert (row["state"], row["tries"], row["token"]) == ("pending", 0, None)
    assert len(await transitions.claim(world.pool, limit=1, lease=LIMITS.lease)) == 1


async def test_what_another_worker_has_by_now_is_let_go(scripted: tuple[World, Scripted]) -> None:
    world, fetcher = scripted
    fetcher.hold("https://example.com/a")
    await world.add("https://example.com/a")
    running = asyncio.create_task(world.archivist.run())
    await asyncio.wait_for(fetcher.begun.wait(), WAIT_SECONDS)
    [task] = world.archivist._held
    await world.archivist.extend()
    assert not task.done()
    await world.all_due()
    [theirs] = await transitions.claim(world.pool, limit=1, lease=LIMITS.lease)
    running.cancel()
    await world.archivist.extend()
    await asyncio.wait({task}, timeout=WAIT_SECONDS)
    row = await world.row()
    assert (row["token"], row["tries"]) == (theirs.token, 2)
    assert world.downloads() == []


async def test_a_file_whose_end_is_being_recorded_is_seen_through(
    scripted: tuple[World, Scripted],
) -> None:
    """It is no claim any longer, which must not be taken for one that was lost."""
    world, _ = scripted
    email_id = await world.add("https://example.com/a")

    async def extended_meanwhile(email_id: UUID) -> None:
        await world.archivist.extend()
        closing = asyncio.create_task(world.archivist.close())
        await asyncio.sleep(0)
        await world._note(email_id)
        ending.append(closing)

    ending: list[asyncio.Task[None]] = []
    world.archivist._ended = extended_meanwhile
    await world.archivist.run_once()
    assert world.ended == [email_id]
    await ending[0]


async def test_what_is_erased_while_it_is_stored_is_removed(
    scripted: tuple[World, Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = scripted
    email_id = await world.add("https://example.com/a")
    put = world.store.put

    async def erased_meanwhile(path: Path, sha256: str) -> None:
        await removing.erase(world.pool, [email_id])
        # Even where the bytes were looked for already.
        assert await remove_erased(world.pool, world.store) == 1
        await put(path, sha256)

    monkeypatch.setattr(world.store, "put", erased_meanwhile)
    await world.archivist.run_once()
    assert world.ended == []
    assert len([content async for content in world.store.contents()]) == 1
    assert await remove_erased(world.pool, world.store) == 1
    assert [content async for content in world.store.contents()] == []


@pytest.mark.parametrize("then", ["other bytes", "none"])
async def test_what_a_killed_worker_stored_and_nobody_needs_then_is_removed(
    scripted: tuple[World, Scripted], then: str
) -> None:
    world, fetcher = scripted
    await world.add("https://example.com/a")
    [file] = await transitions.claim(world.pool, limit=1, lease=LIMITS.lease)
    path, before = world.folder / "before", hashlib.sha256(b"before").hexdigest()
    path.write_bytes(b"before")
    assert await transitions.intend(world.pool, file, sha256=before, size=6, most_bytes=99)
    await world.store.put(path, before)
    # Killed here; its lease runs out.
    assert await remove_erased(world.pool, world.store) == 0
    if then == "none":
        fetcher.error = ZeroDivisionError("of all things")
    await world.all_due()
    await world.archivist.run_once()
    await world.until_settled()
    assert await remove_erased(world.pool, world.store) == 1
    left = [content.sha256 async for content in world.store.contents()]
    assert left == ([] if then == "none" else [hashlib.sha256(fetcher.content).hexdigest()])


async def test_bytes_that_another_email_has_stay_when_one_is_erased(
    scripted: tuple[World, Scripted],
) -> None:
    world, fetcher = scripted
    first = await world.add("https://example.com/a")
    second = await world.add("https://example.com/b")
    await world.archivist.run_once()
    sha256 = hashlib.sha256(fetcher.content).hexdigest()
    await removing.erase(world.pool, [first])
    assert await remove_erased(world.pool, world.store) == 0
    assert await world.store.digest(sha256) == sha256
    await removing.erase(world.pool, [second])
    assert await remove_erased(world.pool, world.store) == 1
    assert await world.store.digest(sha256) is None
    assert await world.pool.fetchval("SELECT count(*) FROM attachment_erasures") == 0


async def test_a_content_is_not_removed_under_whoever_is_about_to_store_it(
    scripted: tuple[World, Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the table and the removal, another file with the same bytes comes."""
    world, fetcher = scripted
    sha256 = hashlib.sha256(fetcher.content).hexdigest()
    await world.add("https://example.com/a")
    path = world.folder / "before"
    path.write_bytes(fetcher.content)
    await world.store.put(path, sha256)
    delete = world.store.delete
    archiving: list[asyncio.Task[int]] = []

    async def slowly(sha256: str) -> None:
        archiving.append(asyncio.create_task(world.archivist.run_once()))
        # It waits for the lock, or is done at once where there is none.
        await asyncio.wait_for(fetcher.begun.wait(), WAIT_SECONDS)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not (archiving[0].done() or await world.pool.fetchval(waiting)):
            pass
        await delete(sha256)

    monkeypatch.setattr(world.store, "delete", slowly)
    assert await remove_unless_needed(world.pool, world.store, sha256)
    await archiving[0]
    row = await world.row()
    assert (row["state"], row["sha256"]) == ("kept", sha256)
    assert await world.store.digest(sha256) == sha256


async def test_what_is_erased_goes_though_nothing_is_fetched_any_more(
    scripted: tuple[World, Scripted], tmp_path: Path
) -> None:
    world, _ = scripted
    email_id = await world.add("https://example.com/a")
    await world.archivist.run_once()
    settings = make_settings(
        attachments="off", attachment_store=world.store.url, home=tmp_path / "nobody's"
    )
    thread = ArchiveThread(settings)
    await thread._remove_alone(world.pool)
    assert len([content async for content in world.store.contents()]) == 1
    await removing.erase(world.pool, [email_id])
    await thread._remove_alone(world.pool)
    assert [content async for content in world.store.contents()] == []
    assert not (tmp_path / "nobody's").exists()
