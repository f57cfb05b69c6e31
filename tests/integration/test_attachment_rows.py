"""The rows of files: made when their email is queued, which waits for them; claimed, ended, erased
by their own rules."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import attrs
import pytest
from support import WAIT_SECONDS, make_settings

from app.attachments import enrolling, removing, transitions
from app.attachments.reasons import Reason
from app.attachments.transitions import ClaimedFile
from app.jobs.dispatcher import Dispatcher
from app.jobs.story import tell_story
from app.jobs.transitions import claiming, dispatching, erasing
from app.jobs.transitions.claiming import Claimed, Refusal
from app.jobs.transitions.dispatching import Files
from app.models.email_attachment import AttachmentState
from app.retention.erasure import erase_email

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(minutes=5)
NOW = timedelta(0)
AN_HOUR = timedelta(hours=1)
WAITING = Files(most=100, wait=AN_HOUR)
SHA = "a" * 64


def url(number: int | str) -> str:
    return f"https://example.zendesk.com/attachments/token/x{number}/?name=a.pdf"


async def store(pool: Pool, files: Any, **columns: Any) -> UUID:
    """Store an email as the Intake does; `files` is what its column holds."""
    values = {
        "from_email": "erika@example.com",
        "attachment_urls": files if isinstance(files, str | None) else json.dumps(files),
        **columns,
    }
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(values)}) VALUES ({places}) RETURNING id",
        *values.values(),
    )
    return email_id


def at(number: int) -> datetime:
    return datetime(2026, 11, 26, tzinfo=UTC) + timedelta(seconds=number)


def some_files(count: int = 1) -> list[dict[str, Any]]:
    return [{"url": url(number), "filename": f"{number}.pdf"} for number in range(count)]


async def rows_of(pool: Pool, email_id: UUID) -> list[dict[str, Any]]:
    rows = await pool.fetch(
        "SELECT * FROM email_attachments WHERE email = $1 ORDER BY position", email_id
    )
    return [dict(row) for row in rows]


async def email_of(pool: Pool, email_id: UUID) -> dict[str, Any]:
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    return dict(row)


async def dispatch(pool: Pool, files: Files | None = WAITING) -> list[UUID]:
    """Let a Dispatcher send all there is. Returns what was sent."""
    sent: list[UUID] = []
    dispatcher = Dispatcher(pool, send=sent.extend, depth=1_000, concurrency=1, files=files)
    while await dispatcher.dispatch_batch():
        pass
    return sent


async def claim_one(pool: Pool) -> ClaimedFile:
    claimed = await transitions.claim(pool, limit=1, lease=LEASE)
    assert len(claimed) == 1
    return claimed[0]


async def let_run_out(pool: Pool) -> None:
    """All leases and pauses are over."""
    await pool.execute("UPDATE email_attachments SET next_attempt_at = now() - interval '1 s'")


async def test_an_email_waits_for_its_files_and_others_do_not(pool: Pool) -> None:
    with_files, without = await store(pool, some_files(2)), await store(pool, None)
    assert await dispatch(pool) == [without]
    email = await email_of(pool, with_files)
    assert email["processing_status"] == "queued"
    assert email["queued_at"] is None
    assert email["next_attempt_at"] > email["updated_at"] + AN_HOUR / 2
    rows = await rows_of(pool, with_files)
    assert [(row["position"], row["url"], row["state"]) for row in rows] == [
        (0, url(0), "pending"),
        (1, url(1), "pending"),
    ]
    assert [row["filename"] for row in rows] == ["0.pdf", "1.pdf"]
    # Nobody gets it before, though a message of it came.
    refused = await claiming.claim(
        pool, {with_files: uuid4()}, lease=LEASE, worker="w", most_bytes=10**9
    )
    assert refused == [Refusal.NO_WORK]


async def test_the_story_tells_of_the_wait_and_of_each_file(pool: Pool) -> None:
    email_id = await store(pool, [*some_files(1), "no url"])
    await dispatch(pool)
    await transitions.postpone(
        pool, await claim_one(pool), delay=AN_HOUR, reason=Reason.TIMEOUT, detail="slow"
    )
    story = await tell_story(pool, email_id, make_settings())
    assert story is not None
    assert story.next_step == "it begins when its files are there, or without those that are not"
    assert story.next_at == (await email_of(pool, email_id))["next_attempt_at"]
    told = [event.what for event in story.events if event.what.startswith("file ")]
    assert told == [
        f"file 0 (0.pdf): to be fetched, 1 tries so far: timeout. {Reason.TIMEOUT.sentence} [slow]",
        f"file 1: skipped: not_a_url. {Reason.NOT_A_URL.sentence}",
    ]


async def test_the_story_tells_who_fetches_now_from_who_vanished(pool: Pool) -> None:
    email_id = await dispatch_many(pool, 1)

    async def told() -> str:
        story = await tell_story(pool, email_id, make_settings())
        assert story is not None
        [what] = [event.what for event in story.events if event.what.startswith("file ")]
        return what.partition("tries so far")[2]

    await claim_one(pool)
    assert await told() == ", fetched now"
    await let_run_out(pool)
    assert await told() == ", whoever fetched it vanished"
    await transitions.postpone(pool, await claim_one(pool), delay=AN_HOUR)
    assert await told() == ""


async def test_the_last_file_lets_its_email_go_on(pool: Pool) -> None:
    email_id = await store(pool, some_files(2))
    await dispatch(pool)
    for number in range(2):
        assert await dispatching.end_wait(pool, [email_id]) == []
        assert await dispatch(pool) == []
        file = await claim_one(pool)
        if number:
            await transitions.give_up(pool, file, AttachmentState.FAILED, reason=Reason.GONE)
        else:
            await transitions.keep(pool, file, sha256=SHA, size=3, content_type="text/plain")
    assert await dispatching.end_wait(pool, [email_id]) == [email_id]
    assert await dispatch(pool) == [email_id]
    assert await dispatching.end_wait(pool, [email_id]) == []


async def test_a_file_that_was_tried_twice_in_vain_is_waited_for_no_longer(pool: Pool) -> None:
    email_id = await store(pool, some_files())
    await dispatch(pool)
    for reason in (Reason.BUSY, Reason.UNREACHABLE, Reason.BUSY):
        # Who asks to wait, or is away for the first time, is waited for.
        file = await claim_one(pool)
        assert await dispatching.end_wait(pool, [email_id]) == []
        await transitions.postpone(pool, file, delay=NOW, reason=reason, counts=not reason.is_wait)
        assert await dispatching.end_wait(pool, [email_id]) == []
    file = await claim_one(pool)
    assert (file.tries, await dispatching.end_waits(pool, limit=10)) == (2, [])
    await transitions.postpone(pool, file, delay=NOW, reason=Reason.UNREACHABLE)
    assert await dispatching.end_wait(pool, [email_id]) == [email_id]
    assert await dispatch(pool) == [email_id]
    # It is tried on all the same.
    assert (await claim_one(pool)).tries == 3


async def test_an_email_goes_on_whose_worker_vanished_after_its_last_file(pool: Pool) -> None:
    left, waiting = await store(pool, some_files(1)), await store(pool, some_files(1))
    retried = await store(pool, None, processing_status="queued", claims=1, retry_count=1)
    await pool.execute(
        "UPDATE incoming_emails SET next_attempt_at = now() + interval '1 h' WHERE id = $1", retried
    )
    await dispatch(pool)
    file = await claim_one(pool)
    await transitions.keep(pool, file, sha256=SHA, size=3, content_type="text/plain")
    # Nobody says so.
    assert await dispatch(pool) == []
    assert await dispatching.end_waits(pool, limit=10) == [file.email_id]
    assert await dispatch(pool) == [file.email_id]
    assert await dispatching.end_waits(pool, limit=10) == []
    assert file.email_id in (left, waiting)


async def test_emails_with_very_many_files_are_taken_few_at_once(pool: Pool) -> None:
    """A statement that makes rows of all of them would run out of time again and again, and no
    email would get its turn any more."""
    many = [await store(pool, some_files(1_500), received_at=at(number)) for number in range(3)]
    last = await store(pool, None, received_at=at(3))
    taken = []
    for _ in range(2):
        queued = await dispatching.queue(pool, limit=200, depth=1_000, files=WAITING)
        taken.append({one.email_id for one in queued})
    assert taken == [{*many[:2]}, {many[2], last}]
    assert await pool.fetchval("SELECT count(*) FROM email_attachments") == 4_500


async def test_what_has_no_files_is_sent_later_if_the_others_cannot_be_seen_to(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> list[UUID]:
        raise ConnectionError

    await store(pool, some_files())
    without = await store(pool, None)
    with monkeypatch.context() as patch:
        patch.setattr(dispatching, "end_wait", fail)
        with pytest.raises(ConnectionError):
            await dispatch(pool)
    assert (await email_of(pool, without))["processing_status"] == "received"
    assert await dispatch(pool) == [without]


async def test_an_email_goes_on_without_its_files_when_its_time_is_up(pool: Pool) -> None:
    email_id = await store(pool, some_files())
    await dispatch(pool)
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = now() - interval '1 s'")
    assert await dispatch(pool) == [email_id]
    [claimed] = await claiming.claim(
        pool, {email_id: uuid4()}, lease=LEASE, worker="w", most_bytes=10**9
    )
    assert isinstance(claimed, Claimed)
    assert [row["state"] for row in await rows_of(pool, email_id)] == ["pending"]


async def test_the_pause_of_a_retry_is_not_ended_by_its_files(pool: Pool) -> None:
    later = "now() + interval '1 h'"
    email_id = await store(pool, some_files(), processing_status="queued", claims=1, retry_count=1)
    await pool.execute(f"UPDATE incoming_emails SET next_attempt_at = {later}")
    assert await dispatching.end_wait(pool, [email_id]) == []


async def test_an_email_need_not_wait_for_files_that_are_fetched_beside_it(pool: Pool) -> None:
    email_id = await store(pool, some_files())
    assert await dispatch(pool, Files(most=100, wait=None)) == [email_id]
    assert [row["state"] for row in await rows_of(pool, email_id)] == ["pending"]


async def test_no_rows_are_made_where_files_are_not_fetched(pool: Pool) -> None:
    email_id = await store(pool, some_files())
    assert await dispatch(pool, None) == [email_id]
    assert await rows_of(pool, email_id) == []


async def test_what_was_not_sent_and_comes_again_gets_no_second_rows(pool: Pool) -> None:
    email_id = await store(pool, some_files(2))
    beside = Files(most=100, wait=None)
    queued = await dispatching.queue(pool, limit=9, depth=9, files=beside)
    assert await dispatching.unqueue(pool, queued) == [email_id]
    assert await dispatch(pool, beside) == [email_id]
    assert len(await rows_of(pool, email_id)) == 2


@pytest.mark.parametrize(
    "files",
    ["null", "[]", "{}", '"https://example.com/a"', "5", None],
)
async def test_a_list_without_files_is_waited_for_by_nobody(pool: Pool, files: str | None) -> None:
    email_id = await store(pool, files)
    assert await dispatch(pool) == [email_id]
    assert await rows_of(pool, email_id) == []


@pytest.mark.parametrize(
    ("entry", "reason", "address"),
    [
        ({"url": "ftp://example.com/a"}, "not_a_url", "ftp://example.com/a"),
        ({"filename": "a.pdf"}, "not_a_url", ""),
        ("a.pdf", "not_a_url", "a.pdf"),
        (None, "not_a_url", ""),
        ([], "not_a_url", ""),
        ("https://example.com/a", None, "https://example.com/a"),
        ({"url": "HTTPS://Example.com/a", "size": "12"}, None, "HTTPS://Example.com/a"),
        ({"url": "https://example.com/a", "size": 10**30}, None, "https://example.com/a"),
        ({"url": "https://example.com/a", "size": {"a": 1}}, None, "https://example.com/a"),
    ],
)
async def test_an_entry_of_any_shape_gets_a_row(
    pool: Pool, entry: Any, reason: str | None, address: str
) -> None:
    email_id = await store(pool, [entry])
    await dispatch(pool)
    [row] = await rows_of(pool, email_id)
    assert (row["url"], row["reason"]) == (address, reason)
    assert row["state"] == ("skipped" if reason else "pending")
    assert (row["ended_at"] is not None) == (reason is not None)


@pytest.mark.parametrize(
    "text", [r'[{"url": "https://a/\u0000"}]', r'[{"url": "https://a/\ud83dx"}]', r'["\uDE00"]']
)
async def test_a_list_that_postgresql_cannot_read_stops_no_other_email(
    pool: Pool, text: str
) -> None:
    odd, even = await store(pool, text), await store(pool, some_files())
    whole = await store(pool, r'[{"url": "https://a.example/", "filename": "\ud83d\ude00 \\u00"}]')
    await dispatch(pool)
    [row] = await rows_of(pool, odd)
    assert (row["state"], row["reason"]) == ("skipped", "not_a_url")
    assert len(await rows_of(pool, even)) == 1
    [row] = await rows_of(pool, whole)
    assert (row["state"], row["filename"]) == ("pending", "😀 \\u00")


async def test_files_beyond_the_limit_are_skipped_and_said_to_be(pool: Pool) -> None:
    email_id = await store(pool, some_files(5))
    await dispatch(pool, Files(most=3, wait=AN_HOUR))
    rows = await rows_of(pool, email_id)
    assert [(row["state"], row["reason"]) for row in rows] == [
        *[("pending", None)] * 3,
        *[("skipped", "too_many")] * 2,
    ]


async def test_an_email_whose_files_are_all_skipped_goes_on(pool: Pool) -> None:
    email_id = await store(pool, ["no url"])
    assert await dispatch(pool) == [email_id]


async def test_two_files_of_one_url_are_two_rows_and_a_late_one_gets_the_next_place(
    pool: Pool,
) -> None:
    email_id = await store(pool, [*some_files(1), *some_files(1)])
    assert await enrolling.enrol(pool, [email_id], most=100) == 2
    await pool.execute(
        "UPDATE incoming_emails SET attachment_urls = $1::json",
        json.dumps([{"url": url("late")}, *some_files(1)]),
    )
    assert await enrolling.enrol(pool, [email_id], most=100) == 1
    assert await enrolling.enrol(pool, [email_id], most=100) == 0
    rows = await rows_of(pool, email_id)
    assert [(row["position"], row["url"]) for row in rows] == [
        (0, url(0)),
        (1, url(0)),
        (2, url("late")),
    ]


async def test_two_workers_get_different_files(pool: Pool) -> None:
    await dispatch_many(pool, 6)
    async with pool.acquire() as first, first.transaction(), pool.acquire() as second:
        mine = await transitions.claim(first, limit=3, lease=LEASE)
        theirs = await transitions.claim(second, limit=10, lease=LEASE)
    assert len(mine) == len(theirs) == 3
    assert not {file.id for file in mine} & {file.id for file in theirs}
    assert await transitions.claim(pool, limit=10, lease=LEASE) == []


async def dispatch_many(pool: Pool, count: int) -> UUID:
    email_id = await store(pool, some_files(count))
    await dispatch(pool)
    return email_id


async def test_what_a_vanished_worker_held_falls_due_and_the_zombie_changes_nothing(
    pool: Pool,
) -> None:
    email_id = await dispatch_many(pool, 1)
    zombie = await claim_one(pool)
    assert await transitions.claim(pool, limit=1, lease=LEASE) == []
    await let_run_out(pool)
    heir = await claim_one(pool)
    assert (heir.id, heir.tries) == (zombie.id, 2)
    assert heir.token != zombie.token
    before = await rows_of(pool, email_id)
    assert await transitions.extend(pool, [zombie], lease=LEASE) == set()
    assert not await transitions.intend(pool, zombie, sha256=SHA, size=1, most_bytes=99)
    assert not await transitions.keep(pool, zombie, sha256=SHA, size=1, content_type=None)
    assert not await transitions.postpone(pool, zombie, delay=NOW)
    assert not await transitions.give_up(
        pool, zombie, AttachmentState.FAILED, reason=Reason.TIMEOUT
    )
    assert await rows_of(pool, email_id) == before
    assert await transitions.extend(pool, [heir], lease=LEASE) == {heir.token}
    assert await transitions.keep(pool, heir, sha256=SHA, size=1, content_type="text/plain")
    # Its statement comes a second time.
    assert not await transitions.keep(pool, heir, sha256=SHA, size=1, content_type="text/plain")


async def test_a_lease_that_is_extended_keeps_others_away(pool: Pool) -> None:
    await dispatch_many(pool, 1)
    file = await claim_one(pool)
    await let_run_out(pool)
    assert await transitions.extend(pool, [file], lease=LEASE) == {file.token}
    assert await transitions.claim(pool, limit=1, lease=LEASE) == []


async def test_a_postponed_file_keeps_its_reason_and_its_tries(pool: Pool) -> None:
    email_id = await dispatch_many(pool, 1)
    await transitions.postpone(
        pool, await claim_one(pool), delay=AN_HOUR, reason=Reason.TIMEOUT, detail="slow"
    )
    [row] = await rows_of(pool, email_id)
    assert (row["state"], row["reason"], row["detail"]) == ("pending", "timeout", "slow")
    assert (row["tries"], row["token"]) == (1, None)
    assert await transitions.claim(pool, limit=1, lease=LEASE) == []
    await let_run_out(pool)
    await transitions.postpone(pool, await claim_one(pool), delay=NOW, counts=False)
    [row] = await rows_of(pool, email_id)
    assert (row["reason"], row["detail"], row["tries"]) == ("timeout", "slow", 1)


async def test_a_host_that_rests_is_left_alone_and_others_are_not(pool: Pool) -> None:
    other = "https://files.example.com/a"
    await store(pool, [{"url": url(1)}, {"url": other}])
    await dispatch(pool)
    claimed = await transitions.claim(
        pool, limit=9, lease=LEASE, resting=["example.zendesk.com", "files.example.org"]
    )
    assert [file.url for file in claimed] == [other]


async def test_a_claim_tells_the_bytes_of_the_emails_other_files(pool: Pool) -> None:
    await dispatch_many(pool, 3)
    await store(pool, some_files(1), zendesk_ticket_id="7")
    first, second = await transitions.claim(pool, limit=2, lease=LEASE)
    await transitions.keep(pool, first, sha256=SHA, size=10, content_type=None)
    await transitions.intend(pool, second, sha256="b" * 64, size=5, most_bytes=99)
    third = await claim_one(pool)
    assert third.bytes_of_email == 15
    await dispatch(pool)
    other = await claim_one(pool)
    assert (other.bytes_of_email, other.ticket_id) == (0, "7")


async def test_what_ended_can_be_fetched_again_with_all_its_tries(pool: Pool) -> None:
    email_id = await dispatch_many(pool, 2)
    for file in await transitions.claim(pool, limit=2, lease=LEASE):
        await transitions.give_up(
            pool, file, AttachmentState.FAILED, reason=Reason.GONE, detail="404"
        )
    failed, other = await rows_of(pool, email_id)
    assert failed["ended_at"] is not None
    assert await transitions.refetch(pool, [failed["id"]], states=[AttachmentState.KEPT]) == []
    again = await transitions.refetch(pool, [failed["id"]], states=[AttachmentState.FAILED])
    assert again == [failed["id"]]
    row = (await rows_of(pool, email_id))[0]
    assert (row["state"], row["reason"], row["detail"], row["tries"]) == ("pending", None, None, 0)
    assert (row["ended_at"], row["sha256"]) == (None, None)
    assert (await rows_of(pool, email_id))[1] == other


async def test_erased_rows_leave_their_bytes_to_be_removed(pool: Pool) -> None:
    email_id = await dispatch_many(pool, 3)
    kept, intended, _ = await transitions.claim(pool, limit=3, lease=LEASE)
    await transitions.keep(pool, kept, sha256=SHA, size=10, content_type=None)
    await transitions.intend(pool, intended, sha256="b" * 64, size=5, most_bytes=99)
    await removing.erase(pool, [email_id])
    assert await rows_of(pool, email_id) == []
    erased = await pool.fetch("SELECT sha256 FROM attachment_erasures ORDER BY sha256")
    assert [row["sha256"] for row in erased] == [SHA, "b" * 64]
    assert not await transitions.keep(pool, intended, sha256="b" * 64, size=5, content_type=None)


async def test_one_file_of_an_email_can_be_erased(pool: Pool) -> None:
    email_id = await dispatch_many(pool, 3)
    for file in await transitions.claim(pool, limit=3, lease=LEASE):
        await transitions.keep(pool, file, sha256=SHA, size=10, content_type=None)
    await removing.erase_unlisted(pool, email_id, [{"url": url(0)}, url(2)])
    assert [row["position"] for row in await rows_of(pool, email_id)] == [0, 2]


async def test_an_email_that_an_operator_erases_takes_its_files_along(pool: Pool) -> None:
    email_id, other = await dispatch_many(pool, 1), await dispatch_many(pool, 1)
    await transitions.keep(
        pool, await claim_one(pool), sha256=SHA, size=10, content_type="text/plain"
    )
    assert await erase_email(pool, email_id, by="erika")
    assert await rows_of(pool, email_id) == []
    assert len(await rows_of(pool, other)) == 1
    assert await pool.fetchval("SELECT sha256 FROM attachment_erasures") == SHA


async def test_erased_emails_get_no_rows(pool: Pool) -> None:
    email_id = await store(pool, some_files())
    async with pool.acquire() as connection, connection.transaction():
        await erasing.empty(connection, [email_id], told="erased", whole=True)
    assert await enrolling.enrol(pool, [email_id], most=100) == 0


async def until_it_waits(pool: Pool, task: "asyncio.Task[Any]") -> None:
    """Wait until something waits for a lock, or the task has ended without."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not task.done() and not await pool.fetchval(  # noqa: ASYNC110 - of the server
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database())"
        ):
            await asyncio.sleep(0.01)


async def test_an_email_erased_while_it_is_queued_leaves_no_files(pool: Pool) -> None:
    email_id = await store(pool, some_files())
    async with pool.acquire() as connection, connection.transaction():
        assert await dispatching.queue(connection, limit=1, depth=1, files=WAITING)
        task = asyncio.create_task(erase_email(pool, email_id, by="erika"))
        await until_it_waits(pool, task)
    assert await task
    assert await rows_of(pool, email_id) == []


async def test_an_email_erased_while_its_files_are_asked_for_leaves_none(pool: Pool) -> None:
    email_id = await store(pool, some_files())
    async with pool.acquire() as connection, connection.transaction():
        await erasing.empty(connection, [email_id], told="erased", whole=True)
        asking = asyncio.create_task(enrolling.enrol(pool, [email_id], most=100))
        await until_it_waits(pool, asking)
    assert await asking == 0
    assert await rows_of(pool, email_id) == []


async def test_the_claims_columns_are_hidden_where_they_may_hold_a_token(pool: Pool) -> None:
    await dispatch_many(pool, 1)
    assert url(0) not in repr(attrs.evolve(await claim_one(pool)))
