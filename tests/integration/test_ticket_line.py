"""The second line behind the webhook: emails that are missing are made from their tickets'
comments, once, whenever their webhooks come.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import asyncpg
import attrs
import pytest
from support import WAIT_SECONDS, make_settings
from zendesk.account import WEBHOOK_SECRET, Account, attachment
from zendesk.answers import NOT_FOUND, Answer, Asked, when
from zendesk.delivery import Delivery, Faults, intake_receiver, render
from zendesk.server import FakeApi, running_api
from zendesk.tickets_api import export

from app.intake import comments, late_webhooks
from app.intake.intake import Intake
from app.intake.signature import sign
from app.retention.criteria import Criterion
from app.retention.erasure import begin, erase_email, work_off
from app.settings import Settings, parse_secrets
from app.zendesk import ticket_line
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskAwayError, ZendeskRefusedError
from app.zendesk.ticket_line import Progress, TicketLine

Pool = asyncpg.Pool

ENDPOINT = "https://mail.example.com/api/v1/zendesk/webhook"
START = datetime.now(UTC) - timedelta(hours=2)
# The export leaves out the last minute, so the account's past is a little longer ago.
AGO = timedelta(minutes=-3)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with running_api(Account(offset=AGO)) as api:
        api.unlimited()
        yield api


@pytest.fixture
def settings(api: FakeApi) -> Settings:
    return make_settings(
        **api.settings,
        zendesk_hosts="example.zendesk.com",
        zendesk_share=1.0,
        zendesk_exports_per_minute=1_000,
        # Of accounts whose clock is another.
        signature_max_age_seconds=3_600,
        webhook_secrets=parse_secrets(WEBHOOK_SECRET),
    )


@pytest.fixture
async def delivery(
    api: FakeApi, settings: Settings, pool: "Pool[asyncpg.Record]"
) -> AsyncIterator[Delivery]:
    intake = Intake(settings, pool)
    yield Delivery(api.account, api.account.add_webhook(ENDPOINT), intake_receiver(intake))
    await intake.close()


@pytest.fixture
async def run(
    pool: "Pool[asyncpg.Record]", api: FakeApi, settings: Settings
) -> AsyncIterator[Callable[..., Any]]:
    client = ZendeskClient(settings)

    async def run(**fields: Any) -> Progress:
        # What was changed is old enough to be exported.
        now = max(datetime.now(UTC), api.account.now)
        api.account.parts["exported_until"] = now + timedelta(seconds=1)
        return await TicketLine(settings, pool, client).run_once(**{"start": START, **fields})

    yield run
    await client.close()


async def emails(pool: "Pool[asyncpg.Record]") -> list[dict[str, Any]]:
    rows = await pool.fetch("SELECT * FROM incoming_emails ORDER BY raw_body_text, id")
    return [dict(row) for row in rows]


async def miss(delivery: Delivery, sender: str, text: str, **fields: Any) -> Any:
    """An email comes for which no webhook is called. Returns its ticket and its comment."""
    before, delivery.faults = delivery.faults, Faults(drop=1.0)
    made = await delivery.mail(sender, text, **fields)
    delivery.faults = before
    return made


async def test_what_is_missing_becomes_an_email_of_its_comment(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, comment = await miss(
        delivery,
        "erika@example.com",
        "Wo bleibt mein Päckchen?",
        html="<p>Wo bleibt mein <b>Päckchen</b>?</p>",
        attachments=[attachment(delivery.account, "rechnung.pdf", 12_345)],
    )
    progress = await run()
    assert (progress.compared, progress.found) == (1, 1)
    (email,) = await emails(pool)
    assert email["origin"] == "backfill"
    assert email["zendesk_ticket_id"] == str(ticket.id)
    assert email["zendesk_comment_id"] == str(comment.id)
    assert (email["from_email"], email["from_name"]) == ("erika@example.com", "erika")
    assert email["raw_body_html"] == "<p>Wo bleibt mein <b>Päckchen</b>?</p>"
    assert email["raw_body_text"] == "Wo bleibt mein Päckchen?"
    assert email["received_at"] == comment.created_at.replace(microsecond=0)
    assert email["processing_status"] == "received"
    (file,) = json.loads(email["attachment_urls"])
    assert (file["filename"], file["size"]) == ("rechnung.pdf", 12_345)
    assert file["url"].startswith("https://example.zendesk.com/attachments/token/")
    assert "no webhook brought it" in email["attempt_errors"]
    assert (await run()).found == 0
    assert len(await emails(pool)) == 1


async def test_a_late_webhook_is_a_duplicate_and_so_is_its_redelivery(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, comment = await miss(delivery, "erika@example.com", "ja")
    await run()
    await delivery.fire(ticket, comment)
    delivery.faults = Faults(double=1.0)
    await delivery._send(
        delivery.webhook.invocations[0],
        (delivery.webhook.invocations[0].attempts[0].payload or "").encode(),
    )
    (email,) = await emails(pool)
    first = delivery.webhook.invocations[0].attempts[0]
    assert email["delivery_signature"] == first.headers["X-Zendesk-Webhook-Signature"]
    assert "its webhook came after all" in email["attempt_errors"]
    # The same words once more are another email, whichever is found first.
    delivery.faults = Faults()
    delivery.account.offset += timedelta(seconds=2)
    await delivery.mail("erika@example.com", "ja", ticket=ticket)
    assert len(await emails(pool)) == 2
    assert (await run()).found == 0
    assert len(await emails(pool)) == 2


async def test_what_came_is_not_missing_and_learns_its_comment(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, first = await delivery.mail("erika@example.com", "one")
    _, second = await delivery.mail("erika@example.com", "two", ticket=ticket)
    assert (await run()).found == 0
    one, two = await emails(pool)
    assert one["zendesk_comment_id"] == str(first.id)
    assert two["zendesk_comment_id"] == str(second.id)
    assert {one["origin"], two["origin"]} == {"webhook"}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: {"body_html": f"<div>{text}</div>"},
        lambda text: {"body_text": f"<p>{text.replace('ü', '&uuml;')}</p>"},
        lambda text: {"body_text": "Neue Nachricht:\n" + text.replace(" ", "\n\n") + "\n-- \nHelp"},
    ],
)
async def test_a_template_may_change_how_the_text_looks(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    change: Callable[[str], dict[str, str]],
) -> None:
    delivery.render = lambda ticket, comment: json.dumps(
        {"ticket_id": ticket.id, "from_email": "a@b.c", **change(comment.body)}
    ).encode()
    text = "Die Tür klemmt, und der Schlüssel passt nicht."
    late = await miss(delivery, "erika@example.com", text)
    ticket, _ = await delivery.mail("anna@example.com", text)
    assert (await run()).found == 1
    await delivery.fire(*late)
    assert len(await emails(pool)) == 2
    assert late[0] is not ticket


async def test_of_two_with_the_same_words_the_one_that_is_missing_is_made(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, _ = await delivery.mail("erika@example.com", "ping")
    _, lost = await miss(delivery, "erika@example.com", "ping", ticket=ticket)
    assert (await run()).found == 1
    assert len(await emails(pool)) == 2
    await delivery.fire(ticket, lost)
    assert len(await emails(pool)) == 2


async def test_what_agents_and_other_channels_say_is_no_email(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    account = delivery.account
    ticket, _ = await delivery.mail("erika@example.com", "question")
    agent = account.add_user("agent@example.com", role="agent")
    account.add_comment(ticket, agent, "answer by mail")
    account.add_comment(ticket, agent, "note", channel="web", public=False)
    account.add_comment(ticket, ticket.requester, "on the web", channel="web")
    by_web = account.open_ticket(ticket.requester, "form", channel="web")
    account.add_comment(by_web, ticket.requester, "by form", channel="web")
    deleted, _ = await miss(delivery, "kim@example.com", "gone")
    deleted.status = "deleted"
    progress = await run()
    assert (progress.tickets, progress.compared, progress.found) == (3, 2, 0)


async def test_an_agents_words_do_not_hide_a_customers(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, _ = await delivery.mail("erika@example.com", "Danke")
    agent = delivery.account.add_user("agent@example.com", role="agent")
    # A trigger without a condition fires for the agent, too.
    delivery.account.offset = AGO + timedelta(seconds=60)
    comment = delivery.account.add_comment(ticket, agent, "Bitte")
    await delivery.fire(ticket, comment)
    await pool.execute(
        "UPDATE incoming_emails SET created_at = $1 WHERE raw_body_text = 'Bitte'",
        comment.created_at + timedelta(seconds=1),
    )
    delivery.account.offset = AGO + timedelta(seconds=120)
    await miss(delivery, "erika@example.com", "Bitte", ticket=ticket)
    assert (await run()).found == 1


async def test_the_sender_is_asked_of_the_audit_and_may_stay_unknown(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, comment = await miss(delivery, "erika@example.com", "text")
    real = {"address": "real@example.com", "name": "Real"}
    comment.sender = {}
    api.account.parts["audit senders"] = {comment.audit_id: real}
    ticket.requester.email = None
    nobody, _ = await miss(delivery, "x@example.com", "y")
    nobody.comments[0].sender = {}
    nobody.requester.email = None
    assert (await run()).found == 2
    first, second = await emails(pool)
    assert (first["from_email"], first["from_name"]) == ("real@example.com", "Real")
    assert second["from_email"] == ""
    assert "its sender is not known" in second["attempt_errors"]


async def test_webhooks_that_come_at_the_same_moment_leave_one_email_each(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    made = [await miss(delivery, f"{n}@example.com", f"text {n}") for n in range(60)]
    order = random.Random(7)

    async def late(ticket: Any, comment: Any) -> None:
        await asyncio.sleep(order.random() * 0.4)
        await delivery.fire(ticket, comment)

    await delivery.fire(*made[0])
    await asyncio.gather(run(), run(), *(late(*one) for one in made[1:-1]))
    await delivery.fire(*made[-1])
    found = await emails(pool)
    assert sorted(email["raw_body_text"] for email in found) == sorted(
        f"text {n}" for n in range(60)
    )
    # Both ways were gone.
    assert len({email["origin"] for email in found}) == 2


async def wait_for(pool: "Pool[asyncpg.Record]", condition: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await pool.fetchval(f"SELECT EXISTS ({condition})"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_webhook_that_is_being_written_is_waited_for(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its INSERT began before the ticket was in question, and ends after that."""
    ticket, comment = await miss(delivery, "erika@example.com", "text")
    settle, settling = comments.settle_writers, asyncio.Event()

    async def settle_and_tell(database: Any) -> None:
        settling.set()
        await settle(database)

    monkeypatch.setattr(comments, "settle_writers", settle_and_tell)
    stamped = when(delivery.account.now)
    monkeypatch.setattr("zendesk.delivery.when", lambda _: stamped)
    signature = sign(WEBHOOK_SECRET, stamped, render(ticket, comment))
    async with pool.acquire() as holder:
        held = holder.transaction()
        await held.start()
        # The INSERT waits for whoever may have the same signature.
        await holder.execute(
            "INSERT INTO incoming_emails (delivery_signature) VALUES ($1)", signature
        )
        webhook = asyncio.create_task(delivery.fire(ticket, comment))
        await wait_for(pool, "SELECT FROM pg_locks WHERE NOT granted")
        line = asyncio.create_task(run())
        told = asyncio.create_task(settling.wait())
        await asyncio.wait({line, told}, return_when=asyncio.FIRST_COMPLETED)
        await held.rollback()
    await webhook
    assert (await line).found == 0
    (email,) = await emails(pool)
    assert (email["origin"], email["zendesk_comment_id"]) == ("webhook", str(comment.id))


async def test_a_webhook_waits_for_the_comment_that_is_being_stored(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = await miss(delivery, "erika@example.com", "text")
    insert, webhooks = comments.insert_anyway, []

    async def insert_slowly(*args: Any) -> Any:
        stored = await insert(*args)
        webhooks.append(asyncio.create_task(delivery.fire(*made)))
        await wait_for(pool, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return stored

    monkeypatch.setattr(comments, "insert_anyway", insert_slowly)
    assert (await run()).found == 1
    await asyncio.gather(*webhooks)
    (email,) = await emails(pool)
    assert email["origin"] == "backfill"
    assert email["delivery_signature"] is not None


async def test_what_was_erased_is_not_made_again(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.account.offset = timedelta()
    ticket, _ = await delivery.mail("erika@example.com", "before any look")
    (email,) = await emails(pool)
    assert await erase_email(pool, email["id"], by="test")
    delivery.account.offset = timedelta(seconds=60)
    _, missed = await miss(delivery, "erika@example.com", "missed", ticket=ticket)
    assert (await run()).found == 1
    (email,) = await emails(pool)
    assert email["zendesk_comment_id"] == str(missed.id)
    criterion = Criterion.sender("erika@example.com")
    await work_off(pool, await begin(pool, criterion, by="test"), criterion)
    assert (await run()).found == 0
    assert await emails(pool) == []


async def test_what_has_no_text_any_more_is_known_by_its_time(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    await delivery.mail("erika@example.com", "before any look")
    # As bodies that are old enough are removed.
    await pool.execute(
        "UPDATE incoming_emails SET raw_body_text = NULL, raw_body_html = NULL, raw_payload = NULL"
    )
    assert (await run()).found == 0


async def test_what_was_deleted_because_of_its_age_is_not_missing(
    pool: "Pool[asyncpg.Record]", api: FakeApi, settings: Settings, delivery: Delivery
) -> None:
    # Nobody has looked since before that, as when the token was refused for some days.
    api.account.offset = timedelta(days=-4)
    old, _ = await delivery.mail("erika@example.com", "old")
    await pool.execute("DELETE FROM incoming_emails")
    api.account.offset = AGO
    await miss(delivery, "erika@example.com", "new", ticket=old)
    client = ZendeskClient(settings)
    kept = settings.model_copy(update={"keep_completed_days": 3.0})
    api.account.parts["exported_until"] = datetime.now(UTC) + timedelta(seconds=1)
    line = TicketLine(kept, pool, client)
    assert (await line.run_once(start=datetime.now(UTC) - timedelta(days=5))).found == 1
    await client.close()
    assert [one["raw_body_text"] for one in await emails(pool)] == ["new"]


async def test_what_zendesk_erased_is_not_made_again(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, _ = await miss(delivery, "erika@example.com", "text")
    event = {
        "type": "zen:event-type:ticket.permanently_deleted",
        "account_id": 1,
        "id": "e",
        "detail": {"id": str(ticket.id)},
        "event": {},
    }
    render, delivery.render = delivery.render, lambda *_: json.dumps(event).encode()
    await delivery.fire(ticket, ticket.comments[0])
    delivery.render = render
    assert (await run()).found == 0
    assert await emails(pool) == []


async def test_a_cursor_that_zendesk_forgot_leaves_no_gap(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    await miss(delivery, "erika@example.com", "one")
    await run()
    await miss(delivery, "erika@example.com", "two")
    refusals = [Answer(400, {"error": "InvalidCursor"})]
    api.instead = lambda asked: refusals.pop() if refusals and "cursor" in asked.query else None
    assert (await run()).found == 1
    assert refusals == []
    api.instead = None
    assert (await run()).found == 0
    # It is named until a round has come to its end.
    assert await pool.fetchval("SELECT trouble FROM zendesk_cursors") is None


async def test_a_round_that_broke_off_goes_on_and_looks_at_all(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    api.account.parts["export size"] = 10
    for number in range(35):
        await miss(delivery, f"{number}@example.com", str(number))
    left = [25]

    def break_off(asked: Any) -> Answer | None:
        if "/comments" in asked.path:
            left[0] -= 1
            return Answer(500) if left[0] < 0 else None
        return None

    api.instead = break_off
    with pytest.raises(ZendeskAwayError):
        await run()
    assert 20 <= len(await emails(pool)) < 35
    api.instead = None
    before = len(api.asked_for("/comments"))
    assert (await run()).tickets == 15
    assert len(api.asked_for("/comments")) - before == 15
    assert len(await emails(pool)) == 35


async def test_odd_tickets_and_comments_are_kept_and_the_rest_goes_on(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    odd, _ = await miss(delivery, "odd@example.com", "odd")
    odd.subject = {"number": 1}  # type: ignore[assignment]
    ticket, _ = await miss(delivery, "erika@example.com", "one")
    _, comment = await miss(delivery, "erika@example.com", "two", ticket=ticket)
    comment.attachments = ["no object"]  # type: ignore[list-item]
    progress = await run()
    assert (progress.found, progress.odd) == (1, 2)
    kept = await pool.fetch("SELECT kind FROM zendesk_oddities ORDER BY kind")
    assert [row["kind"] for row in kept] == ["comment", "ticket"]


async def test_odd_times_and_texts_hold_up_nothing(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    await miss(delivery, "anna@example.com", "one")
    account = delivery.account

    def tickets(asked: Asked) -> Answer | None:
        if "incremental" not in asked.path:
            return None
        answer = export(account, asked)
        for number, shown in enumerate(answer.content["tickets"]):
            odd = {"updated_at": "2026-01-01T00:00:00", "id": 4_000 + number}
            far = {"generated_timestamp": 10**15, "id": 5_000 + number, "description": "\ud83d"}
            answer.content["tickets"] = [shown | odd, shown | far, shown]
        return answer

    api.instead = tickets
    progress = await run()
    assert (progress.found, progress.odd) == (1, 1)
    api.instead = None
    await miss(delivery, "erika@example.com", "two")
    assert (await run()).found == 1


async def test_a_dry_run_tells_and_changes_nothing(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    await delivery.mail("anna@example.com", "came")
    await miss(delivery, "erika@example.com", "missed")
    progress = await run(dry_run=True)
    assert (progress.compared, progress.found) == (2, 1)
    assert "1 emails missing" in str(progress)
    assert [email["zendesk_comment_id"] for email in await emails(pool)] == [None]
    for table in ("zendesk_cursors", "zendesk_tickets_in_question"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_comments_of_before_are_left_alone(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.account.offset = timedelta(hours=-3)
    ticket, _ = await miss(delivery, "erika@example.com", "long ago")
    delivery.account.offset = AGO
    await miss(delivery, "erika@example.com", "now", ticket=ticket)
    assert (await run()).found == 1
    assert [email["raw_body_text"] for email in await emails(pool)] == ["now"]


async def test_the_emails_and_tombstones_of_a_ticket_are_found_by_index(
    pool: "Pool[asyncpg.Record]",
) -> None:
    await pool.execute("""
        INSERT INTO incoming_emails (zendesk_ticket_id, origin)
        SELECT n::text, 'backfill' FROM generate_series(1, 20000) AS n
    """)
    await pool.execute("""
        INSERT INTO tombstones (key, email, erasure)
        SELECT 'arrived ' || n || ' x 1', gen_random_uuid(), gen_random_uuid()
        FROM generate_series(1, 20000) AS n
    """)
    await pool.execute("ANALYZE incoming_emails, tombstones")
    for statement, arguments, index in (
        (comments.SELECT_EMAILS, ("7", START, ["1"]), "ix_incoming_emails_ticket"),
        (late_webhooks.SELECT_MADE, (["7", "8"],), "ix_incoming_emails_ticket"),
        (comments.SELECT_ERASED, ("arrived 7 %",), "ix_tombstones_arrived"),
    ):
        plan = await pool.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *arguments)
        assert index in plan, plan


async def test_who_answers_by_mail_is_heard_on_a_ticket_of_any_channel(
    pool: "Pool[asyncpg.Record]", api: FakeApi, run: Callable[..., Any]
) -> None:
    account = api.account
    user = account.add_user("erika@example.com")
    ticket = account.open_ticket(user, "By a form", channel="web")
    account.add_comment(ticket, user, "written in the form", channel="web")
    account.add_comment(ticket, user, "answered by mail")
    assert (await run()).found == 1
    (email,) = await emails(pool)
    assert email["raw_body_text"] == "answered by mail"


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_a_ticket_of_which_zendesk_does_not_tell_is_set_aside(
    pool: "Pool[asyncpg.Record]",
    api: FakeApi,
    delivery: Delivery,
    run: Callable[..., Any],
    status: int,
) -> None:
    refused, _ = await miss(delivery, "anna@example.com", "one")
    await miss(delivery, "erika@example.com", "two")

    def refuse(asked: Asked) -> Answer | None:
        is_it = f"/tickets/{refused.id}/" in asked.path
        return Answer(status, {"error": "InvalidRecord"}) if is_it else None

    api.instead = refuse
    progress = await run()
    assert (progress.found, progress.odd) == (1, 1)
    (kept,) = await pool.fetch("SELECT kind, item FROM zendesk_oddities")
    assert json.loads(kept["item"])["ticket"] == str(refused.id)
    assert str(status) in kept["item"]
    # The next round goes on behind it; when it changes and is told of, nothing is lost.
    assert (await run()).tickets == 0
    api.instead = None
    delivery.account.offset += timedelta(seconds=5)
    await miss(delivery, "anna@example.com", "three", ticket=refused)
    assert (await run()).found == 2


async def test_where_all_tickets_are_refused_none_is_passed_over(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    for number in range(3):
        await miss(delivery, f"{number}@example.com", f"text {number}")
    api.instead = lambda asked: Answer(400, {}) if "/comments" in asked.path else None
    with pytest.raises(ZendeskRefusedError):
        await run()
    api.instead = None
    assert (await run()).found == 3


def refusing(ticket: Any, status: int) -> Callable[[Asked], Answer | None]:
    return lambda asked: Answer(status, {}) if f"/tickets/{ticket.id}/" in asked.path else None


async def pass_time(delivery: Delivery, run: Callable[..., Any]) -> None:
    """So much that the line looks back no longer at what was written ten hours ago."""
    delivery.account.offset = AGO
    await delivery.mail("kim@example.com", "meanwhile")
    assert (await run()).found == 0
    delivery.account.offset += timedelta(seconds=5)


LONG_AGO = {"start": datetime.now(UTC) - timedelta(hours=11)}


@pytest.mark.parametrize("is_changed", [True, False])
async def test_of_a_ticket_that_was_set_aside_no_earlier_comment_is_lost(
    pool: "Pool[asyncpg.Record]",
    api: FakeApi,
    delivery: Delivery,
    run: Callable[..., Any],
    is_changed: bool,
) -> None:
    delivery.account.offset = timedelta(hours=-10)
    ticket, _ = await miss(delivery, "anna@example.com", "ten hours ago")
    api.instead = refusing(ticket, 422)
    assert (await run(**LONG_AGO)).odd == 1
    await pass_time(delivery, run)
    # It is not asked for in each round.
    assert len(api.asked_for(f"/tickets/{ticket.id}")) == 1
    api.instead = None
    if is_changed:
        await miss(delivery, "anna@example.com", "now", ticket=ticket)
        assert (await run(dry_run=True)).found == 2
        assert (await run()).found == 2
    else:
        await pool.execute("UPDATE zendesk_unseen_tickets SET ask_at = now()")
        assert (await run(dry_run=True)).found == 1
        assert (await run()).found == 1
    assert (await run()).found == 0
    assert await pool.fetchval("SELECT count(*) FROM zendesk_unseen_tickets") == 0


@pytest.mark.parametrize("is_told", [True, False], ids=["by the export", "by its comments"])
async def test_of_a_ticket_that_came_back_from_the_trash_no_comment_is_lost(
    pool: "Pool[asyncpg.Record]",
    api: FakeApi,
    delivery: Delivery,
    run: Callable[..., Any],
    is_told: bool,
) -> None:
    delivery.account.offset = timedelta(hours=-10)
    ticket, _ = await miss(delivery, "anna@example.com", "ten hours ago")
    if is_told:
        ticket.status = "deleted"
    else:
        api.instead = refusing(ticket, 404)
    assert (await run(**LONG_AGO)).found == 0
    await pass_time(delivery, run)
    api.instead, ticket.status = None, "open"
    ticket.changed_at = delivery.account.now
    assert (await run()).found == 1
    assert await pool.fetchval("SELECT count(*) FROM zendesk_unseen_tickets") == 0


async def test_what_lay_in_the_trash_for_longer_than_zendesk_keeps_it_is_forgotten(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    refused, _ = await miss(delivery, "anna@example.com", "one")
    api.instead = refusing(refused, 403)
    await run()
    # Since then it is in the trash.
    refused.status = "deleted"
    await pool.execute("UPDATE zendesk_unseen_tickets SET ask_at = now()")
    await run()
    await pool.execute("UPDATE zendesk_unseen_tickets SET noted_at = now() - interval '61 days'")
    await run()
    assert await pool.fetchval("SELECT count(*) FROM zendesk_unseen_tickets") == 0


async def test_a_ticket_for_which_zendesk_fails_holds_up_the_others_for_some_rounds(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    failing, _ = await miss(delivery, "anna@example.com", "one")
    await miss(delivery, "erika@example.com", "two")
    api.instead = refusing(failing, 503)
    for _ in range(2):
        with pytest.raises(ZendeskAwayError):
            await run()
    assert (await run()).odd == 1
    delivery.account.offset += timedelta(seconds=5)
    await miss(delivery, "erika@example.com", "three")
    # Nor does it later, when it is asked for again, or has changed.
    await pool.execute("UPDATE zendesk_unseen_tickets SET ask_at = now()")
    await miss(delivery, "anna@example.com", "four", ticket=failing)
    assert (await run()).found == 1
    api.instead = None
    await pool.execute("UPDATE zendesk_unseen_tickets SET ask_at = now()")
    assert (await run()).found == 2
    assert len(await emails(pool)) == 4


async def test_an_outage_of_some_rounds_passes_over_no_ticket(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    for number in range(12):
        await miss(delivery, f"{number}@example.com", f"text {number}")
    api.instead = lambda asked: Answer(503) if "/comments" in asked.path else None
    for _ in range(4):
        with pytest.raises(ZendeskAwayError):
            await run()
    api.instead = None
    await pool.execute("UPDATE zendesk_unseen_tickets SET ask_at = now()")
    assert (await run()).found == 12


async def test_a_comment_that_the_database_refuses_costs_the_others_nothing(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    ticket, _ = await miss(delivery, "anna@example.com", "one")
    await miss(delivery, "anna@example.com", "two", ticket=ticket)
    _, third = await miss(delivery, "anna@example.com", "three", ticket=ticket)
    await pool.execute(
        "ALTER TABLE incoming_emails ADD CONSTRAINT no_three CHECK (raw_body_text <> 'three')"
    )
    progress = await run()
    assert (progress.found, progress.odd) == (2, 1)
    assert [email["raw_body_text"] for email in await emails(pool)] == ["one", "two"]
    assert await pool.fetchval("SELECT item::json ->> 'id' FROM zendesk_oddities") == str(third.id)


async def test_a_later_page_of_comments_that_is_gone_takes_the_others_not_along(
    pool: "Pool[asyncpg.Record]",
    api: FakeApi,
    delivery: Delivery,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticket, _ = await miss(delivery, "anna@example.com", "one")
    await miss(delivery, "anna@example.com", "two", ticket=ticket)
    monkeypatch.setattr("app.zendesk.tickets.COMMENTS_A_PAGE", "1")
    api.instead = lambda asked: NOT_FOUND if "page[after]" in asked.query else None
    progress = await run()
    assert (progress.found, progress.odd) == (1, 1)
    assert [email["raw_body_text"] for email in await emails(pool)] == ["two"]


async def test_what_could_not_be_read_and_was_made_of_its_comment_is_one_email(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    settings: Settings,
    run: Callable[..., Any],
) -> None:
    ticket, comment = await miss(delivery, "erika@example.com", "Wo bleibt mein Päckchen?")
    body = render(ticket, comment)
    broken, stamped = body.replace(b"bleibt", b'"bl" "eibt", "'), when(datetime.now(UTC))
    signature = sign(WEBHOOK_SECRET, stamped, broken)
    intake = Intake(settings, pool)
    first = await intake.admit(
        broken, email_id=uuid4(), signature=signature, timestamp=stamped, invocation_id="A"
    )
    assert first.unreadable
    assert (await run()).found == 1
    assert len(await emails(pool)) == 2
    # An operator mends it.
    for _ in range(2):
        mended = await intake.admit_mended(
            body,
            email_id=uuid4(),
            original=broken,
            signature=signature,
            invocation_id="A",
            received_at=datetime.now(UTC),
            without_sender=False,
            by="olga",
        )
        (email,) = await emails(pool)
        assert (mended.email_id, mended.is_duplicate) == (email["id"], True)
        assert (email["origin"], email["delivery_signature"]) == ("backfill", signature)
    assert (await run()).found == 0
    await intake.close()


async def test_a_short_text_under_a_header_of_the_template_is_one_email(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_header(ticket: Any, comment: Any) -> bytes:
        shown = attrs.evolve(comment, body=f"Neue Antwort auf Ticket {ticket.id}:\n{comment.body}")
        return render(ticket, shown)

    monkeypatch.setattr("zendesk.delivery.render", with_header)
    ticket, _ = await delivery.mail("erika@example.com", "Danke")
    # Both orders.
    assert (await run()).found == 0
    # The export's cursor knows seconds.
    delivery.account.offset += timedelta(seconds=5)
    missed = await miss(delivery, "erika@example.com", "Ja bitte", ticket=ticket)
    assert (await run()).found == 1
    await delivery.fire(*missed)
    assert len(await emails(pool)) == 2
    # What ends with it and is another comment's text is no such email.
    delivery.account.offset += timedelta(seconds=5)
    await delivery.mail("erika@example.com", "Nein danke", ticket=ticket)
    await miss(delivery, "erika@example.com", "danke", ticket=ticket)
    assert (await run()).found == 1
    made = [e["raw_body_text"] for e in await emails(pool) if e["origin"] == "backfill"]
    assert made == ["Ja bitte", "danke"]


@pytest.mark.parametrize("is_of_older_version", [True, False])
async def test_a_clock_that_is_behind_zendesks_makes_no_email_twice(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    is_of_older_version: bool,
) -> None:
    """As if ours were nine minutes behind: comments seem to be written after their emails came."""
    delivery.account.offset += timedelta(minutes=9)
    await delivery.mail("erika@example.com", "Wo bleibt mein Päckchen?")
    if is_of_older_version:
        await pool.execute("UPDATE incoming_emails SET signed_at = NULL")
    ahead = parsedate_to_datetime

    def date(text: str) -> datetime:
        return ahead(text) + timedelta(minutes=9)

    assert (await run(dry_run=True)).found == 1
    monkeypatch.setattr("app.zendesk.client.parsedate_to_datetime", date)
    assert (await run()).found == 0


async def test_the_first_look_begins_at_zendesks_time(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ours is twenty minutes ahead: what comes in these would be older than the first look."""
    ahead, behind = parsedate_to_datetime, timedelta(minutes=20)
    monkeypatch.setattr(
        "app.zendesk.client.parsedate_to_datetime", lambda text: ahead(text) - behind
    )
    assert (await run(start=None)).tickets == 0
    delivery.account.offset = timedelta(minutes=-19)
    await miss(delivery, "erika@example.com", "text")
    assert (await run(start=None)).found == 1


async def test_what_is_written_in_the_second_of_the_first_look_is_not_before_it(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    """Zendesk tells its times in whole seconds."""
    assert (await run(start=None)).tickets == 0
    since = await pool.fetchval("SELECT since FROM zendesk_cursors WHERE name = 'tickets'")
    delivery.account.offset = since.replace(microsecond=0) - datetime.now(UTC)
    await miss(delivery, "erika@example.com", "text")
    assert (await run(start=None)).found == 1


class Held:
    """What Zendesk sent, until it is admitted: late, as from a record of Zendesk's."""

    def __init__(
        self, delivery: Delivery, settings: Settings, pool: "Pool[asyncpg.Record]"
    ) -> None:
        self._delivery, self._settings, self._pool = delivery, settings, pool
        self._calls: list[tuple[bytes, dict[str, str]]] = []

    async def fire(self, ticket: Any, comment: Any) -> None:
        async def keep(body: bytes, headers: dict[str, str]) -> int:
            self._calls.append((body, headers))
            return 403

        self._delivery.receiver, receiver = keep, self._delivery.receiver
        await self._delivery.fire(ticket, comment)
        self._delivery.receiver = receiver

    async def admit(self) -> None:
        intake = Intake(self._settings, self._pool)
        for body, headers in self._calls:
            timestamp = headers["X-Zendesk-Webhook-Signature-Timestamp"]
            await intake.admit(
                body,
                email_id=uuid4(),
                signature=headers["X-Zendesk-Webhook-Signature"],
                timestamp=timestamp,
                invocation_id=headers["X-Zendesk-Webhook-Invocation-Id"],
                received_at=datetime.fromisoformat(timestamp),
            )
        await intake.close()


@pytest.fixture
def held(delivery: Delivery, settings: Settings, pool: "Pool[asyncpg.Record]") -> Held:
    return Held(delivery, settings, pool)


def without_files(ticket: Any, comment: Any) -> bytes:
    return render(ticket, attrs.evolve(comment, attachments=[]))


async def names_of_files(pool: "Pool[asyncpg.Record]") -> list[list[str]]:
    """Those of each email."""
    rows = await pool.fetch("SELECT attachment_urls FROM incoming_emails")
    files = [json.loads(row["attachment_urls"] or "[]") for row in rows]
    return sorted([one["filename"] for one in some] for some in files)


@pytest.fixture(params=[render, without_files], ids=["with files", "without files"])
def template(request: pytest.FixtureRequest, delivery: Delivery) -> Any:
    """What the trigger's template sends of a comment's files."""
    delivery.render = request.param
    return request.param


async def test_of_two_with_the_same_words_and_other_files_the_one_that_is_missing_is_made(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    held: Held,
    template: Any,
) -> None:
    """The first one is recovered much later, when it is nearer to the second one in time."""
    account = delivery.account
    account.offset = timedelta(minutes=-60)
    photo = attachment(account, "A.png", 1)
    ticket, first = await miss(delivery, "erika@example.com", "siehe Foto", attachments=[photo])
    await held.fire(ticket, first)
    account.offset = timedelta(minutes=-40)
    photo = attachment(account, "B.png", 1)
    await miss(delivery, "erika@example.com", "siehe Foto", ticket=ticket, attachments=[photo])
    await held.admit()
    assert (await run()).found == 1
    (named,) = [e["zendesk_comment_id"] for e in await emails(pool) if e["origin"] == "webhook"]
    assert named == str(first.id)
    assert await names_of_files(pool) == [["A.png"] if template is render else [], ["B.png"]]
    assert (await run()).found == 0


async def test_a_webhook_that_is_late_is_not_taken_for_what_was_written_after_it(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any], template: Any
) -> None:
    account = delivery.account
    account.offset = timedelta(minutes=-20)
    photo = attachment(account, "A.png", 1)
    ticket, first = await miss(delivery, "erika@example.com", "", attachments=[photo])
    account.offset = timedelta(minutes=-16)
    await delivery.fire(ticket, first)
    account.offset = timedelta(minutes=-15)
    photo = attachment(account, "B.png", 1)
    await miss(delivery, "erika@example.com", "", ticket=ticket, attachments=[photo])
    assert (await run()).found == 1
    assert ["B.png"] in await names_of_files(pool)
    assert len(await emails(pool)) == 2


async def test_where_no_file_is_told_all_that_are_in_doubt_are_kept(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    account, delivery.render = delivery.account, without_files
    made = []
    ticket = None
    for minutes, name in ((-20, "A.png"), (-18, "B.png")):
        account.offset = timedelta(minutes=minutes)
        photo = attachment(account, name, 1)
        made.append(
            await miss(delivery, "e@example.com", "Foto", ticket=ticket, attachments=[photo])
        )
        ticket = made[0][0]
    account.offset = timedelta(minutes=-17)
    # It may be either of them.
    await delivery.fire(*made[0])
    assert (await run()).found == 2
    assert await names_of_files(pool) == [[], ["A.png"], ["B.png"]]
    assert (await run()).found == 0
    # The other one is late, too, and is none more.
    await delivery.fire(*made[1])
    assert len(await emails(pool)) == 3
    assert (await run()).found == 0


async def test_where_as_many_came_as_were_written_none_is_in_doubt(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any], template: Any
) -> None:
    account = delivery.account
    ticket = None
    for minutes in (-20, -18, -17):
        account.offset = timedelta(minutes=minutes)
        photo = attachment(account, f"{minutes}.png", 1)
        fields = {"ticket": ticket, "attachments": [photo]}
        ticket, _ = await delivery.mail("erika@example.com", "Foto", **fields)
    assert (await run()).found == 0


async def test_what_has_other_files_is_no_late_webhook_of_a_comment(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    account = delivery.account
    photo = attachment(account, "A.png", 1)
    late = await miss(delivery, "erika@example.com", "Foto", attachments=[photo])
    assert (await run()).found == 1
    account.offset += timedelta(seconds=5)
    photo = attachment(account, "B.png", 1)
    await delivery.mail("erika@example.com", "Foto", ticket=late[0], attachments=[photo])
    assert await names_of_files(pool) == [["A.png"], ["B.png"]]
    await delivery.fire(*late)
    assert (await run()).found == 0
    assert len(await emails(pool)) == 2


async def test_late_webhooks_of_the_same_words_may_come_in_any_order(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any], held: Held
) -> None:
    delivery.account.offset = timedelta(minutes=-40)
    ticket, first = await miss(delivery, "erika@example.com", "Danke")
    await held.fire(ticket, first)
    delivery.account.offset = timedelta(minutes=-20)
    _, second = await miss(delivery, "erika@example.com", "Danke", ticket=ticket)
    assert (await run()).found == 2
    await delivery.fire(ticket, second)
    await held.admit()
    assert len(await emails(pool)) == 2


@pytest.mark.parametrize("looks_between", [False, True])
async def test_a_webhook_whose_place_another_one_has_takes_that_ones(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    held: Held,
    looks_between: bool,
) -> None:
    delivery.account.offset = timedelta(minutes=-40)
    ticket, first = await miss(delivery, "erika@example.com", "Danke")
    await held.fire(ticket, first)
    assert (await run()).found == 1
    delivery.account.offset = timedelta(minutes=-20)
    await delivery.mail("erika@example.com", "Danke", ticket=ticket)
    assert len(await emails(pool)) == 1
    if looks_between:
        assert (await run()).found == 1
    await held.admit()
    assert (await run()).found == 0
    assert len(await emails(pool)) == 2
    # One more is one more.
    delivery.account.offset = timedelta(minutes=-10)
    await miss(delivery, "erika@example.com", "Danke", ticket=ticket)
    assert (await run()).found == 1


async def test_what_came_since_the_comments_were_read_is_not_taken_for_one_of_them(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery.account.offset = timedelta(minutes=-40)
    ticket, first = await miss(delivery, "erika@example.com", "Danke")
    await held.fire(ticket, first)
    delivery.account.offset = timedelta(minutes=-20)
    read, further = ticket_line.read_comments, []

    async def read_slowly(*args: Any) -> Any:
        told = await read(*args)
        if not further:
            further.append(await delivery.mail("erika@example.com", "Danke", ticket=ticket))
        return told

    monkeypatch.setattr(ticket_line, "read_comments", read_slowly)
    assert (await run()).found == 1
    came = [e["zendesk_comment_id"] for e in await emails(pool) if e["origin"] == "webhook"]
    assert came == [str(further[0][1].id)]
    await held.admit()
    assert (await run()).found == 0
    assert len(await emails(pool)) == 2


async def test_a_late_webhook_is_known_by_zendesks_clock(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    """Ours is twenty minutes ahead: a short text seems to come long after it was written."""

    def with_header(ticket: Any, comment: Any) -> bytes:
        return render(ticket, attrs.evolve(comment, body=f"Neue Antwort:\n{comment.body}"))

    delivery.render = with_header
    delivery.account.offset = timedelta(minutes=-20)
    made = await miss(delivery, "erika@example.com", "Danke")
    assert (await run()).found == 1
    await delivery.fire(*made)
    assert len(await emails(pool)) == 1


async def test_images_within_the_text_are_no_files_of_another_comment(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    """A template that sends HTML and no files: what is quoted in it says nothing against it."""
    account = delivery.account
    image, file = (attachment(account, name, 1) for name in ("quoted.png", "A.pdf"))
    text = "Danke, das Bild habe ich gesehen"
    html = f'<p>{text}</p><img src="{image["content_url"]}">'

    def with_html(ticket: Any, comment: Any) -> bytes:
        fields = json.loads(without_files(ticket, comment)) | {"body_html": comment.html_body}
        return json.dumps(fields).encode()

    delivery.render = with_html
    await delivery.mail("erika@example.com", text, html=html, attachments=[file])
    assert await names_of_files(pool) == [["quoted.png"]]
    assert (await run()).found == 0


async def test_a_short_text_under_a_header_is_one_email_however_late_it_is_admitted(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any], held: Held
) -> None:
    def with_header(ticket: Any, comment: Any) -> bytes:
        return render(ticket, attrs.evolve(comment, body=f"Neue Antwort:\n{comment.body}"))

    delivery.render = with_header
    delivery.account.offset = timedelta(minutes=-50)
    made = await miss(delivery, "erika@example.com", "Danke")
    await held.fire(*made)
    await held.admit()
    assert (await run()).found == 0


async def test_a_thumb_up_is_no_thumb_down(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.account.offset = timedelta(minutes=-20)
    ticket, first = await miss(delivery, "erika@example.com", "👍")
    delivery.account.offset = timedelta(minutes=-19)
    await miss(delivery, "erika@example.com", "👎", ticket=ticket)
    delivery.account.offset = timedelta(minutes=-18)
    await delivery.fire(ticket, first)
    assert (await run()).found == 1
    assert [email["raw_body_text"] for email in await emails(pool)] == ["👍", "👎"]
