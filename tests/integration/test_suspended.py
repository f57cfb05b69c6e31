"""Suspended mail on a real database, beside a fake Zendesk that suspends it and deletes it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest
from support import make_settings
from zendesk.account import Account
from zendesk.answers import Answer
from zendesk.server import FakeApi, running_api
from zendesk.suspended_api import KEPT_QUIETLY, STUBBORN, suspend, suspended

from app.alerts.alarms import find_open
from app.intake.intake import Intake
from app.intake.mending import admit_mended, examine
from app.intake.quarantine import Quarantine
from app.intake.refusals import discard, find_refusal
from app.models.quarantined_webhook import RefusalReason
from app.retention import erasure
from app.retention.criteria import Criterion
from app.settings import Settings
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskError
from app.zendesk.suspended import rows
from app.zendesk.suspended.api import read_suspended
from app.zendesk.suspended.keeping import archive, recover_all
from app.zendesk.suspended.watch import MOST_RECOVERIES, Round, watch
from app.zendesk.ticket_line import TicketLine

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

ERIKA = "erika@example.com"
UNKNOWN = (10, "Permission denied for unknown email submitter")


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with running_api(Account()) as api:
        yield api


def settings_for(api: FakeApi, **values: Any) -> Settings:
    return make_settings(**api.settings, **values)


async def look(pool: Pool, api: FakeApi, **values: Any) -> Round:
    done = await watch(settings_for(api, **values), pool)
    assert done is not None
    return done


async def quarantined(pool: Pool) -> list[dict[str, Any]]:
    return [dict(row) for row in await pool.fetch("SELECT * FROM quarantined_webhooks")]


async def told(pool: Pool) -> list[str]:
    return [alarm.text for alarm in await find_open(pool) if alarm.kind == "suspended"]


async def test_the_list_is_that_of_zendesk_over_all_its_pages(pool: Pool, api: FakeApi) -> None:
    ids = [suspend(api.account, f"{n}@example.com", age=timedelta(hours=n)) for n in range(230)]
    suspended(api.account)[-1] = {"subject": "without an id", "created_at": "2026-11-26"}
    done = await look(pool, api)
    assert (done.listed, done.odd) == (230, 1)
    assert done.summary == "230 are suspended, 1 without an id, left out"
    kept = await pool.fetchval("SELECT item FROM zendesk_oddities WHERE kind = 'suspended'")
    assert json.loads(kept)["subject"] == "without an id"
    found = await rows.find_all(pool)
    # That which is deleted first stands first.
    assert [row.id for row in found] == ids[::-1]
    assert (found[0].sender, found[0].cause) == ("229@example.com", "spam")
    for number in ids[:200]:
        del suspended(api.account)[number]
    assert (await look(pool, api)).gone == 200
    assert len(await rows.find_all(pool)) == 30


async def test_nothing_is_forgotten_where_zendesk_did_not_tell_all(
    pool: Pool, api: FakeApi
) -> None:
    for number in range(3):
        suspend(api.account, f"{number}@example.com")
    await look(pool, api)
    first = {
        "suspended_tickets": [*suspended(api.account).values()][:1],
        "meta": {"has_more": True, "after_cursor": "more"},
    }
    api.answers.extend([Answer(200, first), Answer(403)])
    with pytest.raises(ZendeskError, match="answers 403"):
        await watch(settings_for(api), pool)
    assert len(await rows.find_all(pool)) == 3


async def test_what_is_archived_outlives_zendesk_once_and_says_why_it_is_there(
    pool: Pool, api: FakeApi
) -> None:
    file = {"content_url": "https://example.com/a.pdf", "file_name": "a.pdf", "size": 7}
    number = suspend(api.account, ERIKA, "Mahnung \x00", cause=UNKNOWN, attachments=[file])
    for _ in range(3):
        await look(pool, api, suspended_archive=True)
    [kept] = await quarantined(pool)
    assert kept["reason"] == "suspended"
    assert "suspended it as unknown_author (Permission denied" in kept["detail"]
    assert ERIKA not in kept["detail"]
    suspended(api.account).clear()
    await look(pool, api, suspended_archive=True)
    assert len(await quarantined(pool)) == 1
    body = json.loads(kept["body"])
    assert body["ticket_id"] == f"suspended-{number}"
    assert body["attachments"][0]["url"] == file["content_url"]
    assert body["suspended_ticket"]["message_id"] == f"<{number}@mail.example.com>"


async def test_an_archived_mail_becomes_an_email_when_an_operator_says_so(
    pool: Pool, api: FakeApi
) -> None:
    suspend(api.account, ERIKA, "Mahnung")
    await look(pool, api, suspended_archive=True)
    [kept] = await quarantined(pool)
    refusal = await find_refusal(pool, kept["id"])
    assert refusal is not None
    intake = Intake(make_settings(), pool)
    try:
        findings = examine(intake, refusal)
        assert (findings.is_genuine, findings.wrong) == (True, [])
        admission = await admit_mended(intake, pool, refusal, by="olga")
    finally:
        await intake.close()
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", admission.email_id)
    assert row is not None
    assert (row["from_email"], row["subject"]) == (ERIKA, "Mahnung")
    assert await quarantined(pool) == []
    # What an operator took out is not put in again.
    await look(pool, api, suspended_archive=True)
    assert await quarantined(pool) == []


async def test_what_an_operator_discarded_is_not_archived_again(pool: Pool, api: FakeApi) -> None:
    suspend(api.account, ERIKA)
    await look(pool, api, suspended_archive=True)
    await discard(pool, [kept["id"] for kept in await quarantined(pool)])
    assert (await look(pool, api, suspended_archive=True)).archived == 0
    assert await quarantined(pool) == []


async def test_several_who_archive_the_same_keep_it_once(pool: Pool, api: FakeApi) -> None:
    number = suspend(api.account, ERIKA)
    settings = settings_for(api)
    found = read_suspended(suspended(api.account)[number])
    assert found is not None
    await rows.see(pool, [found])
    quarantine = Quarantine(settings, pool)
    try:
        kept = await asyncio.gather(*(archive(settings, pool, quarantine, found) for _ in range(8)))
    finally:
        await quarantine.close()
    assert sorted(map(str, kept)) == ["False"] * 7 + ["True"]
    assert len(await quarantined(pool)) == 1


async def test_a_full_quarantine_is_an_alarm_and_leaves_room_for_webhooks(
    pool: Pool, api: FakeApi
) -> None:
    for number in range(12):
        suspend(api.account, f"{number}@example.com")
    bounds = {"quarantine_max_rows": 10, "suspended_archive": True}
    done = await look(pool, api, **bounds)
    # Half of it, as for any one sender's address.
    assert (done.archived, done.without_room) == (5, 7)
    assert "the quarantine has no room for suspended mail" in (await told(pool))[0]
    assert await pool.fetchval("SELECT coalesce(sum(dropped), 0) FROM quarantine_drops") == 0
    bounds["quarantine_max_rows"] = 100
    assert (await look(pool, api, **bounds)).archived == 7
    assert await told(pool) == []
    reasons = {kept["reason"] for kept in await quarantined(pool)}
    assert reasons == {RefusalReason.SUSPENDED}


async def test_what_a_rule_means_is_recovered_and_not_archived(pool: Pool, api: FakeApi) -> None:
    suspend(api.account, "max@partner.example", cause=UNKNOWN)
    spam = suspend(api.account, "spam@example.com")
    rules = {"suspended_recover": "unknown_author:*@partner.example", "suspended_archive": True}
    done = await look(pool, api, **rules)
    assert (done.recovered, done.archived) == (1, 1)
    # The requester stays who wrote it.
    assert [ticket.requester.email for ticket in api.account.tickets.values()] == [
        "max@partner.example"
    ]
    assert [asked.path for asked in api.asked if asked.method == "PUT"] == [
        "/api/v2/suspended_tickets/recover_many"
    ]
    await look(pool, api, **rules)
    assert [row.id for row in await rows.find_all(pool)] == [spam]


async def test_what_zendesk_cannot_recover_is_tried_a_few_times_and_then_archived(
    pool: Pool, api: FakeApi
) -> None:
    number = suspend(api.account, ERIKA, cause=UNKNOWN)
    api.account.parts[STUBBORN] = {number}
    rules = {"suspended_recover": "unknown_author", "suspended_archive": True}
    for _ in range(MOST_RECOVERIES):
        done = await look(pool, api, **rules)
        assert (done.recovered, done.not_recovered, done.archived) == (0, 1, 0)
    assert (await look(pool, api, **rules)).archived == 1
    assert len(api.asked_for("recover_many")) == MOST_RECOVERIES


async def test_who_recovers_an_archived_mail_takes_its_copy_out(pool: Pool, api: FakeApi) -> None:
    ids = [suspend(api.account, f"{number}@example.com") for number in range(130)]
    await look(pool, api, suspended_archive=True)
    api.account.parts[STUBBORN], api.account.parts[KEPT_QUIETLY] = {ids[0]}, {ids[1]}
    client = ZendeskClient(settings_for(api))
    try:
        done, failed = await recover_all(client, pool, ids, by="olga")
    finally:
        await client.close()
    assert (done, failed) == (129, {ids[0]})
    assert len(api.asked_for("recover_many")) == 2
    # No answer is relied on: what is listed no longer was recovered, and is here.
    assert len(await quarantined(pool)) == 130
    await look(pool, api)
    assert len(await quarantined(pool)) == 130
    await bring_emails(pool, api)
    await look(pool, api)
    left = sorted(
        kept["detail"].split("number ")[1].split(",")[0] for kept in await quarantined(pool)
    )
    assert left == sorted(map(str, ids[:2]))
    # What was to be recovered and was deleted in its time is in the quarantine alone.
    suspended(api.account).clear()
    await pool.execute("UPDATE suspended_tickets SET suspended_at = now() - interval '14 days'")
    await look(pool, api)
    assert len(await quarantined(pool)) == 2


async def bring_emails(pool: Pool, api: FakeApi) -> None:
    """No trigger fires for what is recovered; the second line finds it."""
    api.account.parts["exported_until"] = datetime.now(UTC) + timedelta(minutes=1)
    settings = settings_for(api)
    client = ZendeskClient(settings)
    start = datetime.now(UTC) - timedelta(hours=1)
    await TicketLine(settings, pool, client).run_once(start=start)
    await client.close()


async def test_the_copy_of_what_was_recovered_and_never_came_stays(
    pool: Pool, api: FakeApi
) -> None:
    number = suspend(api.account, ERIKA)
    await look(pool, api, suspended_archive=True)
    client = ZendeskClient(settings_for(api))
    try:
        await recover_all(client, pool, [number], by="olga")
    finally:
        await client.close()
    # Another email of the same sender is none of it.
    (ticket,) = api.account.tickets.values()
    ticket.comments.clear()
    api.account.mail(ERIKA, "something else")
    await bring_emails(pool, api)
    assert (await look(pool, api)).gone == 0
    await pool.execute(
        "UPDATE suspended_tickets SET recover_asked_at = recover_asked_at - interval '2 hours'"
    )
    assert (await look(pool, api)).gone == 1
    assert len(await quarantined(pool)) == 1


async def test_there_is_an_alarm_before_zendesk_deletes_what_nobody_kept(
    pool: Pool, api: FakeApi
) -> None:
    old = [suspend(api.account, ERIKA, age=timedelta(days=11, hours=1)) for _ in range(2)]
    suspend(api.account, ERIKA, age=timedelta(days=10))
    await look(pool, api)
    [text] = await told(pool)
    assert text.startswith("Zendesk deletes 2 suspended mails on 20")
    await look(pool, api)
    assert await pool.fetchval("SELECT count(*) FROM alarms") == 1
    del suspended(api.account)[old[0]]
    await look(pool, api, suspended_archive=True)
    assert await told(pool) == []
    suspend(api.account, ERIKA, age=timedelta(days=13))
    await look(pool, api, suspended_alert_days=0)
    assert await told(pool) == []


async def test_of_an_erased_sender_nothing_comes_back_though_zendesk_has_it(
    pool: Pool, api: FakeApi
) -> None:
    suspend(api.account, ERIKA, "Geheim")
    await look(pool, api, suspended_archive=True)
    criterion = Criterion.sender(ERIKA.upper())
    assert await erasure.work_off(pool, await erasure.begin(pool, criterion, by="olga"), criterion)
    await look(pool, api, suspended_archive=True)
    assert await quarantined(pool) == []
    stored = await pool.fetch("SELECT row_to_json(t)::text AS text FROM suspended_tickets AS t")
    assert len(stored) == 1
    assert ERIKA not in stored[0]["text"]
    assert "Geheim" not in stored[0]["text"]


async def test_what_an_operator_mends_while_its_sender_is_erased_is_not_admitted(
    pool: Pool, api: FakeApi
) -> None:
    suspend(api.account, ERIKA, "Geheim")
    await look(pool, api, suspended_archive=True)
    [kept] = await quarantined(pool)
    in_the_editor = await find_refusal(pool, kept["id"])
    assert in_the_editor is not None
    criterion = Criterion.sender(ERIKA)
    assert await erasure.work_off(pool, await erasure.begin(pool, criterion, by="olga"), criterion)
    intake = Intake(make_settings(), pool)
    try:
        assert (await admit_mended(intake, pool, in_the_editor, by="ada")).is_duplicate
    finally:
        await intake.close()
    assert await pool.fetchval("SELECT count(*) FROM incoming_emails") == 0


async def test_a_list_that_does_not_get_on_lets_nothing_be_forgotten(
    pool: Pool, api: FakeApi
) -> None:
    for number in range(3):
        suspend(api.account, f"{number}@example.com")
    await look(pool, api)
    first = {
        "suspended_tickets": [*suspended(api.account).values()][:1],
        "meta": {"has_more": True, "after_cursor": "more"},
    }
    api.answers.extend([Answer(200, first), Answer(200, first)])
    with pytest.raises(ZendeskError, match="does not get on"):
        await watch(settings_for(api), pool)
    assert len(await rows.find_all(pool)) == 3


async def test_the_copy_of_what_could_not_be_recovered_outlives_its_deletion(
    pool: Pool, api: FakeApi
) -> None:
    number = suspend(api.account, ERIKA)
    await look(pool, api, suspended_archive=True)
    api.account.parts[STUBBORN] = {number}
    client = ZendeskClient(settings_for(api))
    try:
        await recover_all(client, pool, [number], by="olga")
    finally:
        await client.close()
    await pool.execute(
        "UPDATE suspended_tickets SET recover_asked_at = recover_asked_at - interval '2 hours'"
    )
    await look(pool, api)
    del suspended(api.account)[number]
    assert (await look(pool, api)).gone == 1
    assert len(await quarantined(pool)) == 1
