"""Event subscriptions of Zendesk, from their bytes to the rows, on a real database."""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import one_email
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import SECRET, email, make_settings

from app.intake.admission import Admission
from app.intake.erasures import settle
from app.intake.events import is_event, read_event
from app.intake.intake import Intake
from app.intake.keeper import IntakeKeeper
from app.intake.signature import sign
from app.intake.waiting_files import LOCK_TICKET
from app.jobs.story import tell_story
from app.models.webhook_status import WebhookStatus
from app.models.zendesk_event import EventKind
from app.telemetry.metrics import EVENTS
from app.telemetry.request_id import uuid7

Pool = asyncpg.Pool

TICKET, COMMENT, ACCOUNT = "71447", "5871", 2222096


def event(name: str, *, ticket: Any = TICKET, **parts: Any) -> dict[str, Any]:
    """An event as Zendesk documents it; `detail` and `event` are merged into those parts."""
    detail = {
        "id": ticket,
        "actor_id": "5870",
        "requester_id": "5870",
        "submitter_id": "5870",
        "assignee_id": None,
        "status": "OPEN",
        "priority": None,
        "type": "INCIDENT",
        "subject": "My order 8812",
        "description": "My order 8812 is broken.",
        "is_public": False,
        "tags": ["vip"],
        "via": {"channel": "mail"},
        "created_at": "2026-06-09T08:36:43Z",
        "updated_at": "2026-06-09T08:36:44Z",
    }
    return {
        "account_id": ACCOUNT,
        "id": str(uuid.uuid4()),
        "type": f"zen:event-type:{name}",
        "subject": f"zen:ticket:{ticket}",
        "time": "2026-06-09T08:36:44.304701605Z",
        "zendesk_event_version": "2022-11-06",
        **{key: value for key, value in parts.items() if key not in ("detail", "event")},
        "detail": {**detail, **parts.get("detail", {})},
        "event": {
            "meta": {"sequence": {"id": "1", "position": 2}},
            **parts.get("event", {}),
        },
    }


def added(comment: Any = COMMENT, **changes: Any) -> dict[str, Any]:
    """An end user's answer by mail."""
    return event(
        "ticket.comment_added",
        event={
            "comment": {
                "id": comment,
                "body": "It is still broken.",
                "html_body": "<div>It is <b>still</b> broken.</div>",
                "is_public": False,
                "author": {"id": "5870", "is_staff": False, "name": "Kim Example"},
                **changes,
            }
        },
    )


def linked(number: int = 1, comment: Any = COMMENT, **parts: Any) -> dict[str, Any]:
    item = {
        "id": f"90{number}",
        "filename": f"photo-{number}.png",
        "content_type": "image/png",
        "content_url": f"https://example.zendesk.com/attachments/token/t{number}/?name=p.png",
        "is_public": True,
    }
    return event(
        "ticket.attachment_linked_to_comment",
        **{"event": {"comment": {"id": comment, "attachment": item}}, **parts},
    )


@pytest.fixture
async def intake(pool: "Pool[asyncpg.Record]") -> AsyncIterator[Intake]:
    intake = Intake(make_settings(), pool)
    yield intake
    await intake.close()


async def send(intake: Intake, payload: dict[str, Any] | bytes) -> Admission:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    timestamp = datetime.now(UTC).isoformat()
    return await intake.admit(
        body,
        email_id=uuid7(),
        signature=sign(SECRET, timestamp, body),
        timestamp=timestamp,
        invocation_id=None,
    )


async def rows(pool: "Pool[asyncpg.Record]") -> list[dict[str, Any]]:
    return [
        dict(row) for row in await pool.fetch("SELECT * FROM incoming_emails ORDER BY created_at")
    ]


async def story(pool: "Pool[asyncpg.Record]", email_id: Any) -> str:
    told = await tell_story(pool, email_id, make_settings())
    assert told is not None
    return "\n".join(happened.what for happened in told.events)


async def test_the_documented_events_are_emails(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    opened, answered = event("ticket.created"), added()
    assert [(await send(intake, one)).status for one in (opened, answered)] == ["accepted"] * 2
    first, second = await rows(pool)
    assert first["raw_body_text"] == "My order 8812 is broken."
    assert first["received_at"] == datetime(2026, 6, 9, 8, 36, 43, tzinfo=UTC)
    assert second["raw_body_text"] == "It is still broken."
    assert second["raw_body_html"] == "<div>It is <b>still</b> broken.</div>"
    assert second["from_name"] == "Kim Example"
    assert second["received_at"] == datetime(2026, 6, 9, 8, 36, 44, 304701, tzinfo=UTC)
    assert (second["zendesk_account_id"], second["zendesk_comment_id"]) == (str(ACCOUNT), COMMENT)
    for row in (first, second):
        assert (row["zendesk_ticket_id"], row["subject"]) == (TICKET, "My order 8812")
        assert row["processing_status"] == "received"
        assert "no address of its sender" in await story(pool, row["id"])
    assert json.loads(first["raw_payload"]) == opened


async def test_an_event_that_comes_twice_is_one_email(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    once = added()
    first = await send(intake, once)
    again = await send(intake, {**once, "account_id": str(ACCOUNT), "extra": "pretty-printed"})
    assert (again.status, again.email_id) == ("duplicate", first.email_id)
    # The same id of another account is another event.
    assert (await send(intake, {**once, "account_id": 7})).status == "accepted"
    assert len(await rows(pool)) == 2


@pytest.mark.parametrize(
    "odd",
    [
        event("ticket.created", ticket=71447, account_id="2222096"),
        event("ticket.created", detail={"via": {"channel": "MAIL"}, "tags": None}),
        event("ticket.created", detail={"via": {"channel": "EMAIL"}, "tags": "vip late"}),
        event("ticket.created", detail={"via": None}, time=None),
        event("ticket.created", time="2026-06-09T08:36:44Z"),
        event("ticket.created", time="2026-06-09T08:36:44.304Z", event={"meta": None}),
        {**event("ticket.created"), "type": "ZEN:EVENT-TYPE:TICKET.CREATED", "event": {}},
        added(comment=5871, author={"id": 5870, "is_staff": False}),
        added(author=None),
        added(is_public=True),
        event("ticket.comment_added", event={"comment": None}),
    ],
)
async def test_odd_spellings_are_emails_all_the_same(
    intake: Intake, pool: "Pool[asyncpg.Record]", odd: dict[str, Any]
) -> None:
    assert (await send(intake, odd)).status == "accepted"
    (row,) = await rows(pool)
    assert row["zendesk_ticket_id"] == TICKET


@pytest.mark.parametrize(
    "other",
    [
        added(author={"id": "1", "is_staff": True, "name": "Agent"}),
        event("ticket.created", detail={"via": {"channel": "web"}}),
        event("ticket.created", detail={"via": {"channel": "API"}}),
        event("ticket.status_changed", event={"current": "OPEN", "previous": "NEW"}),
        {
            "type": "zen:event-type:user.active_changed",
            "account_id": 1,
            "id": "2b24ef10",
            "detail": {"id": "6596848315901", "email": "kim@example.org"},
            "event": {"current": False},
        },
        {"type": "zen:event-type:messaging.something_new", "detail": {"id": "1"}},
        {"zendesk_event_version": "2030-01-01", "type": None, "detail": []},
    ],
)
async def test_what_is_no_email_is_acknowledged_and_counted(
    intake: Intake, pool: "Pool[asyncpg.Record]", other: dict[str, Any]
) -> None:
    counted = EVENTS.labels(EventKind.OTHER)
    before = counted._value.get()
    admission = await send(intake, other)
    assert (admission.status, admission.email_id) == (WebhookStatus.ACKNOWLEDGED, None)
    assert await rows(pool) == []
    assert counted._value.get() == before + 1


async def test_a_trigger_with_a_field_called_type_is_a_trigger(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    flat = email(type="incident", event="x", detail={}, zendesk_event_version="1")
    assert (await send(intake, flat)).status == "accepted"
    assert (await rows(pool))[0]["from_email"] == flat["from_email"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_files_join_their_email_in_any_order(
    intake: Intake, pool: "Pool[asyncpg.Record]", order: tuple[int, ...]
) -> None:
    events = [added(), linked(1), linked(2)]
    for index in order:
        await send(intake, events[index])
    # They come again, and one of a comment that is no email.
    await send(intake, events[1])
    await send(intake, linked(3, comment="999", detail={"created_at": "2026-01-01T00:00:00Z"}))
    (row,) = await rows(pool)
    files = json.loads(row["attachment_urls"])
    assert sorted(item["filename"] for item in files) == ["photo-1.png", "photo-2.png"]
    assert files[0]["url"].startswith("https://example.zendesk.com/attachments/token/")
    assert files[0]["size"] is None


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_file_of_a_new_ticket_joins_the_email_that_made_it(
    intake: Intake, pool: "Pool[asyncpg.Record]", is_first: bool
) -> None:
    both = [linked(1, comment="777"), event("ticket.created")]
    for one in both if is_first else reversed(both):
        await send(intake, one)
    # An agent's file, linked days later, is not the customer's.
    await send(intake, linked(2, comment="778", time="2026-06-12T08:00:00Z"))
    (row,) = await rows(pool)
    assert [item["id"] for item in json.loads(row["attachment_urls"])] == ["901"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_a_file_of_an_early_reply_joins_the_reply(
    intake: Intake, pool: "Pool[asyncpg.Record]", order: tuple[int, ...]
) -> None:
    # A file of the opening email is there besides; it stays.
    await send(intake, linked(7, comment="777"))
    events = [event("ticket.created"), added(), linked()]
    for index in order:
        await send(intake, events[index])
    await send(intake, events[2])
    by_comment = {row["zendesk_comment_id"]: row for row in await rows(pool)}
    files = {
        comment: [item["id"] for item in json.loads(row["attachment_urls"] or "[]")]
        for comment, row in by_comment.items()
    }
    assert files == {None: ["907"], COMMENT: ["901"]}
    # A file that is there when its email is stored gets its row when that is queued.
    of_reply = await pool.fetchval(
        "SELECT count(*) FROM email_attachments JOIN incoming_emails AS email ON email = email.id"
        " WHERE (zendesk_comment_id IS NOT NULL) <> (filename = 'photo-1.png')"
    )
    assert of_reply == 0


async def test_a_file_that_joined_by_a_guess_goes_with_its_redacted_comment(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, event("ticket.created"))
    await send(intake, linked())
    by_staff = {"id": COMMENT, "author": {"is_staff": True}}
    await send(intake, event("ticket.comment_redacted", event={"comment": by_staff}))
    (row,) = await rows(pool)
    assert (row["erased_at"], row["attachment_urls"]) == (None, None)
    assert "redacted its comment" in await story(pool, row["id"])


async def test_a_dropped_file_is_told_to_the_emails_of_triggers(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    email_id = (await send(intake, email(ticket_id=TICKET))).email_id
    await send(intake, linked())
    await send(intake, event("ticket.created", ticket="8"))
    await send(intake, linked(2, ticket="8"))
    await pool.execute("UPDATE waiting_attachments SET created_at = now() - interval '8 days'")
    await settle(pool)
    assert await pool.fetchval("SELECT count(*) FROM waiting_attachments") == 0
    assert f"a file of comment {COMMENT} of this ticket was dropped" in await story(pool, email_id)
    (other,) = [row for row in await rows(pool) if row["zendesk_ticket_id"] == "8"]
    assert "dropped" not in await story(pool, other["id"])
    assert other["attachment_urls"] is not None


async def test_emails_do_not_wait_for_events(
    pool: "Pool[asyncpg.Record]", database_url: str
) -> None:
    async with (
        asyncpg.create_pool(database_url, min_size=0, max_size=2) as event_pool,
        asyncpg.create_pool(database_url, min_size=0, max_size=3) as intake_pool,
    ):
        intake = Intake(make_settings(), intake_pool, event_pool=event_pool)
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute(LOCK_TICKET, TICKET)
            waiting = [asyncio.create_task(send(intake, linked(number))) for number in range(6)]
            async with asyncio.timeout(60):
                while await pool.fetchval(WAITING_FOR_LOCK) < 2:
                    pass
                assert (await send(intake, email())).status == "accepted"
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        await intake.close()
    assert await pool.fetchval("SELECT count(*) FROM waiting_attachments") == 6


WAITING_FOR_LOCK = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

CONTENT = (
    *("raw_body_html", "raw_body_text", "raw_payload", "original_body", "attachment_urls"),
    *("cleaned_body", "extracted_data", "processing_error"),
)


def erasure(name: str) -> dict[str, Any]:
    part = {"comment": {"id": COMMENT}} if name == "ticket.comment_redacted" else {}
    return event(name, time=datetime.now(UTC).isoformat(), event=part)


ERASURES = ["ticket.comment_redacted", "ticket.soft_deleted", "ticket.permanently_deleted"]


@pytest.mark.parametrize("name", ERASURES)
@pytest.mark.parametrize("status", ["received", "processing", "completed", "failed"])
async def test_what_zendesk_erased_is_erased_in_every_state(
    intake: Intake, pool: "Pool[asyncpg.Record]", name: str, status: str
) -> None:
    once = added()
    email_id = (await send(intake, once)).email_id
    await send(intake, linked())
    other = (await send(intake, event("ticket.created", ticket="5"))).email_id
    claim = None
    if status != "received":
        claimed = await one_email.claim(pool, email_id, lease=timedelta(minutes=1), worker="host:1")
        assert claimed
        claim = claimed[0]
    if status in ("completed", "failed"):
        await pool.execute(
            "UPDATE incoming_emails SET processing_status = $2, completed_at = now(),"
            " cleaned_body = 'still broken', extracted_data = '{}', processing_error = 'broken',"
            ' attempt_errors = \'[{"at": "2026-06-09T08:36:44Z", "attempt": 1,'
            ' "error": "still broken"}]\' WHERE id = $1',
            email_id,
            status,
        )
    answer = await send(intake, erasure(name))
    assert answer.status == "acknowledged"
    by_id = {row["id"]: row for row in await rows(pool)}
    row = by_id[email_id]
    assert {row[column] for column in CONTENT} == {None}
    assert row["processing_status"] == "completed"
    assert row["erased_at"] is not None
    told = await story(pool, email_id)
    assert "because Zendesk" in told
    assert "broken" not in str(row["attempt_errors"])
    assert (row["subject"] == "") == (name == "ticket.permanently_deleted")
    assert by_id[other]["raw_body_text"] == "My order 8812 is broken."
    # A worker that held it brings nothing back.
    if status == "processing":
        assert claim is not None
        assert not await one_email.complete(
            pool, claim, extracted_data="{}", cleaned_body="It is still broken."
        )
    # Nor does a replay, be it under another id.
    assert (await send(intake, once)).email_id in (None, email_id)
    assert (await send(intake, {**once, "id": "another"})).status == "acknowledged"
    await send(intake, linked(2))
    (row,) = [row for row in await rows(pool) if row["zendesk_ticket_id"] == TICKET]
    assert {row[column] for column in CONTENT} == {None}
    assert await archived(pool) == []


@pytest.mark.parametrize("first", ERASURES[:2])
async def test_a_ticket_that_is_deleted_for_good_keeps_no_sender_whatever_was_erased_before(
    intake: Intake, pool: "Pool[asyncpg.Record]", first: str
) -> None:
    await send(intake, added())
    await pool.execute("UPDATE incoming_emails SET from_email = 'erika@example.com'")
    await send(intake, erasure(first))
    (row,) = await rows(pool)
    assert row["erased_at"] is not None
    assert row["from_email"] != ""
    for again in (1, 2):
        await send(intake, {**erasure("ticket.permanently_deleted"), "id": f"gone {again}"})
        (row,) = await rows(pool)
        assert (row["from_email"], row["from_name"], row["subject"]) == ("", None, "")
    assert "for good" in await story(pool, row["id"])


@pytest.mark.parametrize("name", ERASURES)
async def test_an_erasure_that_is_earlier_than_the_email_holds(
    intake: Intake, pool: "Pool[asyncpg.Record]", name: str
) -> None:
    await send(intake, linked())
    await send(intake, erasure(name))
    assert (await send(intake, added())).status == "acknowledged"
    assert await rows(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM waiting_attachments") == 0


async def test_a_ticket_of_triggers_is_erased_as_well(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, email(ticket_id=TICKET))
    await send(intake, erasure("ticket.permanently_deleted"))
    (row,) = await rows(pool)
    assert (row["raw_body_html"], row["raw_payload"], row["from_email"]) == (None, None, "")


async def test_a_restored_ticket_takes_emails_again(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    now = datetime.now(UTC)
    await send(intake, event("ticket.soft_deleted", time=(now - timedelta(hours=2)).isoformat()))
    late = {**added("1"), "time": (now - timedelta(hours=3)).isoformat()}
    assert (await send(intake, late)).status == "acknowledged"
    # Zendesk sends nothing of a ticket in the trash: it was restored.
    fresh = {**added("2"), "time": (now - timedelta(hours=1)).isoformat()}
    assert (await send(intake, fresh)).status == "accepted"
    await send(intake, event("ticket.undeleted", time=now.isoformat()))
    assert (await send(intake, {**late, "id": "again"})).status == "accepted"


@pytest.mark.parametrize("is_trigger", [True, False])
@pytest.mark.parametrize("is_restored", ["before", "after", "untold"])
async def test_a_ticket_that_is_thrown_away_takes_no_email_that_came_after_it(
    intake: Intake, pool: "Pool[asyncpg.Record]", is_restored: str, is_trigger: bool
) -> None:
    now = datetime.now(UTC)
    at = [(now - timedelta(minutes=minutes)).isoformat() for minutes in (20, 10, 9, 8)]
    trash = event("ticket.soft_deleted", time=at[1])
    undeleted = event("ticket.undeleted", time=at[2])
    await send(intake, {**added("1"), "time": at[0]})
    await send(intake, trash)
    if is_restored == "before":
        await send(intake, undeleted)
    await send(intake, email(ticket_id=TICKET) if is_trigger else {**added("2"), "time": at[3]})
    if is_restored == "after":
        await send(intake, undeleted)
    await send(intake, linked(comment="2", time=at[3]))
    for again in (trash, {**trash, "id": "late"}):
        await send(intake, again)
    first, second = await rows(pool)
    assert first["erased_at"] is not None
    assert second["erased_at"] is None
    assert second["raw_payload"] is not None
    assert is_trigger or second["attachment_urls"] is not None
    # What was refused before the ticket was restored is taken, however often the first is told.
    late = {**added("3"), "time": at[0]}
    expected = "acknowledged" if is_restored == "untold" else "accepted"
    assert (await send(intake, late)).status == expected


async def test_a_redaction_that_comes_again_erases_no_other_email(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, email(ticket_id=TICKET))
    now = datetime.now(UTC).isoformat()
    redacted = event("ticket.comment_redacted", time=now, event={"comment": {"id": "77"}})
    await send(intake, redacted)
    await send(intake, redacted)
    await send(intake, email(ticket_id=TICKET))
    await send(intake, redacted)
    later = datetime.now(UTC).isoformat()
    first, second = await rows(pool)
    assert first["erased_at"] is not None
    assert second["erased_at"] is None
    assert "redacted comment" not in await story(pool, second["id"])
    await send(intake, {**redacted, "id": "second", "time": later})
    first, second = await rows(pool)
    assert second["erased_at"] is None
    assert "redacted comment 77" in await story(pool, second["id"])


async def test_a_redaction_without_a_known_comment_means_the_one_email_it_can_mean(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, event("ticket.created"))
    by_staff = {"id": "77", "author": {"is_staff": True}}
    await send(intake, event("ticket.comment_redacted", event={"comment": by_staff}))
    (row,) = await rows(pool)
    assert row["erased_at"] is None
    await send(intake, event("ticket.comment_redacted", event={"comment": {"id": "77"}}))
    (row,) = await rows(pool)
    assert row["raw_body_text"] is None
    for _ in range(2):
        await send(intake, email(ticket_id="8"))
    now = datetime.now(UTC).isoformat()
    redacted = event(
        "ticket.comment_redacted", ticket="8", time=now, event={"comment": {"id": "78"}}
    )
    await send(intake, redacted)
    for row in await rows(pool):
        if row["zendesk_ticket_id"] == "8":
            assert row["raw_body_html"] is not None
            assert "redacted comment 78" in await story(pool, row["id"])


async def archived(pool: "Pool[asyncpg.Record]") -> list[str]:
    """The names of the files that the archive knows."""
    found = await pool.fetch("SELECT filename FROM email_attachments ORDER BY position")
    return [row["filename"] for row in found]


async def test_a_file_that_comes_after_its_email_was_processed_is_archived(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, added())
    await pool.execute("UPDATE incoming_emails SET processing_status = 'completed'")
    for number in (1, 2, 1):
        await send(intake, linked(number))
    assert await archived(pool) == ["photo-1.png", "photo-2.png"]


async def test_a_redacted_file_goes_and_does_not_come_back(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, added())
    for number in (1, 2):
        await send(intake, linked(number))
    gone = {"comment": {"id": COMMENT, "attachment": {"id": 901}}}
    await send(intake, event("ticket.attachment_redacted_from_comment", event=gone))
    await send(intake, linked(1))
    (row,) = await rows(pool)
    assert [item["id"] for item in json.loads(row["attachment_urls"])] == ["902"]
    assert await archived(pool) == ["photo-2.png"]
    assert row["raw_body_text"] == "It is still broken."
    assert "a file was removed" in await story(pool, row["id"])


@pytest.mark.parametrize("whose", ["file", "comment"])
@pytest.mark.parametrize(
    ("columns", "is_told"),
    [
        ("sync_status = 'synced', synced_at = now()", True),
        ("sync_status = 'failed', sync_retry_count = 9, sync_error = 'away'", True),
        ("sync_status = 'pending', sync_token = gen_random_uuid()", True),
        ("sync_status = 'synced', synced_at = now() - interval '1 day'", False),
        ("sync_status = 'not_applicable'", False),
        ("processing_status = 'queued', sync_status = 'synced', synced_at = now()", False),
    ],
)
async def test_that_a_file_was_redacted_is_told_to_the_receiver_by_a_new_number(
    intake: Intake, pool: "Pool[asyncpg.Record]", whose: str, columns: str, is_told: bool
) -> None:
    if whose == "file":
        await send(intake, added())
        await send(intake, linked(1))
        gone = event(
            "ticket.attachment_redacted_from_comment",
            event={"comment": {"id": COMMENT, "attachment": {"id": 901}}},
        )
    else:
        await send(intake, event("ticket.created"))
        await send(intake, linked())
        by_staff = {"id": COMMENT, "author": {"is_staff": True}}
        gone = event("ticket.comment_redacted", event={"comment": by_staff})
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'completed', completed_at = now(),"
        " sync_version = 1"
    )
    await pool.execute(f"UPDATE incoming_emails SET {columns}")
    (before,) = await rows(pool)
    await send(intake, gone)
    (row,) = await rows(pool)
    assert row["attachment_urls"] is None
    if is_told:
        assert (row["sync_status"], row["sync_version"]) == ("pending", 2)
        assert (row["sync_retry_count"], row["sync_error"]) == (0, None)
        assert row["sync_next_attempt_at"] is not None
        assert "to be delivered again: a file of it was removed" in await story(pool, row["id"])
    else:
        assert (row["sync_status"], row["sync_version"]) == (before["sync_status"], 1)


async def test_a_file_that_was_redacted_while_its_email_was_written_goes(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    gone = {"comment": {"id": COMMENT, "attachment": {"id": 901}}}
    await send(intake, event("ticket.attachment_redacted_from_comment", event=gone))
    await send(intake, added())
    await pool.execute(
        "UPDATE incoming_emails SET attachment_urls = $1",
        json.dumps([{"id": "901", "url": "https://a.example/1"}, {"id": "902"}]),
    )
    await settle(pool)
    (row,) = await rows(pool)
    assert [item["id"] for item in json.loads(row["attachment_urls"])] == ["902"]


async def test_the_keeper_erases_what_a_write_brought_at_the_same_moment(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    await send(intake, erasure("ticket.permanently_deleted"))
    await pool.execute(
        "INSERT INTO incoming_emails (zendesk_ticket_id, raw_body_text) VALUES ($1, 'x')", TICKET
    )
    await pool.execute(
        "INSERT INTO waiting_attachments (event_key, ticket_id, created_at)"
        " VALUES ('old', '1', now() - interval '8 days')"
    )
    keeper = IntakeKeeper(make_settings(), pool)
    await keeper.close()
    await keeper.run_once()
    assert (await rows(pool))[0]["raw_body_text"] is None
    assert await pool.fetchval("SELECT count(*) FROM waiting_attachments") == 0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
SPOILT = [
    *("account_id", "id", "subject", "time", "detail", "event", "extra"),
    *("detail.via", "detail.tags", "detail.subject", "detail.created_at", "detail.description"),
    *("event.comment", "event.comment.id", "event.comment.author", "event.comment.body"),
    *("event.comment.author.is_staff", "event.comment.attachment", "event.comment.via"),
]


@st.composite
def spoilt_events(draw: st.DrawFn) -> dict[str, Any]:
    made = draw(st.sampled_from([added, linked, lambda: event("ticket.created")]))()
    made["type"] = draw(st.sampled_from([made["type"], made["type"].upper(), "zen:event-type:x"]))
    for path in draw(st.lists(st.sampled_from(SPOILT), max_size=5, unique=True)):
        *parents, key = path.split(".")
        place: Any = made
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[key] = draw(JSON)
    return made


@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(spoilt=spoilt_events())
async def test_however_odd_an_event_is_it_is_answered_and_no_email_is_lost(
    intake: Intake, pool: "Pool[asyncpg.Record]", spoilt: dict[str, Any]
) -> None:
    body = json.dumps(spoilt).encode()
    assert is_event(spoilt)
    read = read_event(spoilt, datetime.now(UTC))
    admission = await send(intake, body)
    if read.kind is not EventKind.EMAIL:
        assert admission.status == "acknowledged"
        return
    assert admission.status in ("accepted", "duplicate")
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", admission.email_id)
    assert row is not None
    assert row["zendesk_ticket_id"] == read.ticket_id
