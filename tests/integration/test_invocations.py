"""The first line behind the webhook: calls that Zendesk did not record as delivered are looked into
in its own records, and what it sent is admitted as if it had come.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from support import WAIT_SECONDS, make_settings
from zendesk.account import WEBHOOK_SECRET, Account, Attempt, Invocation
from zendesk.answers import Answer
from zendesk.delivery import Delivery, Faults, intake_receiver
from zendesk.server import FakeApi, running_api

from app.api.gap_metrics import GapCounts
from app.desk.figures import Lookout
from app.intake.intake import Intake
from app.models.zendesk_watch import Outcome
from app.settings import Settings, parse_secrets
from app.zendesk import attempts
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskAwayError, ZendeskShapeError
from app.zendesk.gaps import find_gaps
from app.zendesk.invocations import InvocationLine, Tally, WebhookUnknownError
from app.zendesk.webhooks import list_attempts

Pool = asyncpg.Pool

ENDPOINT = "https://mail.example.com/api/v1/zendesk/webhook"
START = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with running_api(Account()) as api:
        api.unlimited()
        yield api


@pytest.fixture
def settings(api: FakeApi) -> Settings:
    return make_settings(
        **api.settings, zendesk_share=1.0, webhook_secrets=parse_secrets(WEBHOOK_SECRET)
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
    pool: "Pool[asyncpg.Record]", settings: Settings
) -> AsyncIterator[Callable[..., Any]]:
    client = ZendeskClient(settings)

    async def run(**fields: Any) -> Tally:
        return await InvocationLine(settings, pool, client).run_once(start=START, **fields)

    yield run
    await client.close()


async def emails(pool: "Pool[asyncpg.Record]") -> list[dict[str, Any]]:
    rows = await pool.fetch("SELECT * FROM incoming_emails ORDER BY from_email, id")
    return [dict(row) for row in rows]


async def outcomes(pool: "Pool[asyncpg.Record]") -> list[str]:
    rows = await pool.fetch("SELECT outcome FROM zendesk_invocations ORDER BY id")
    return [row["outcome"] for row in rows]


async def test_what_a_firewall_kept_out_comes_in_with_its_own_signature(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    await delivery.mail("anna@example.com", "came")
    delivery.faults = Faults(refuse=1.0)
    await delivery.mail("berta@example.com", "kept out")
    tally = await run()
    assert tally.outcomes == Counter({Outcome.RECOVERED: 1})
    came, recovered = await emails(pool)
    assert (came["origin"], recovered["origin"]) == ("webhook", "recovered")
    (attempt,) = delivery.webhook.invocations[1].attempts
    assert recovered["delivery_signature"] == attempt.headers["X-Zendesk-Webhook-Signature"]
    assert recovered["raw_body_text"] == "kept out"
    assert recovered["processing_status"] == "received"
    assert "recovered from Zendesk's record" in recovered["attempt_errors"]
    # Neither a further look nor Zendesk's own further try makes a second one.
    assert (await run()).outcomes == Counter()
    delivery.faults = Faults()
    invocation = delivery.webhook.invocations[1]
    await delivery._send(invocation, (attempt.payload or "").encode())
    assert len(await emails(pool)) == 2


async def test_each_way_of_not_being_delivered_is_told_apart(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    for number, faults in enumerate(
        (
            Faults(throttle=1.0),
            Faults(circuit=1.0),
            Faults(lose_answer=1.0),
            Faults(refuse=1.0),
            Faults(),
        )
    ):
        delivery.faults = faults
        await delivery.mail(f"{number}@example.com", "text")
    tally = await run()
    assert tally.outcomes == Counter({Outcome.NO_REQUEST: 2, Outcome.HAD: 1, Outcome.RECOVERED: 1})
    assert tally.missed == Counter({"throttled": 1, "circuit broken": 1, "terminated": 2})
    assert [email["from_email"][0] for email in await emails(pool)] == ["2", "3", "4"]
    assert tally.waiting == 0


async def test_what_was_held_back_is_looked_into_again_when_it_was_sent(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(throttle=1.0)
    ticket, comment = await delivery.mail("anna@example.com", "later")
    assert (await run()).outcomes == Counter({Outcome.NO_REQUEST: 1})
    delivery.faults = Faults(refuse=1.0)
    delivery.account.offset = timedelta(minutes=1)
    await delivery.fire(ticket, comment)
    second = delivery.webhook.invocations.pop()
    (invocation,) = delivery.webhook.invocations
    invocation.attempts += second.attempts
    invocation.completed_at = second.completed_at
    invocation.status, invocation.status_code = second.status, second.status_code
    assert (await run()).outcomes == Counter({Outcome.RECOVERED: 1})
    assert len(await emails(pool)) == 1


async def test_a_wrong_secret_leads_to_the_quarantine_once(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.webhook.secret = "another secret of twenty-four characters"
    await delivery.mail("anna@example.com", "text")
    for _ in range(2):
        await run()
        await pool.execute("UPDATE zendesk_invocations SET outcome = 'waiting'")
    assert (await run()).outcomes == Counter({Outcome.QUARANTINED: 1})
    (refused,) = await pool.fetch("SELECT * FROM quarantined_webhooks")
    assert (refused["reason"], refused["is_signed"]) == ("signature", False)
    assert json.loads(refused["headers"])["x-zendesk-webhook-id"] == delivery.webhook.id
    # What the web process kept of a refused webhook is not kept twice.
    await pool.execute("UPDATE quarantined_webhooks SET id = gen_random_uuid()")
    await pool.execute("UPDATE zendesk_invocations SET outcome = 'waiting'")
    await run()
    assert await pool.fetchval("SELECT count(*) FROM quarantined_webhooks") == 1
    assert await emails(pool) == []


async def test_a_payload_that_the_intake_refuses_goes_to_the_quarantine_as_signed(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    delivery.render = lambda ticket, comment: b'{"ticket_id": "7"}'
    await delivery.mail("anna@example.com", "text")
    assert (await run()).outcomes == Counter({Outcome.QUARANTINED: 1})
    (refused,) = await pool.fetch("SELECT * FROM quarantined_webhooks")
    assert (refused["reason"], refused["is_signed"]) == ("invalid", True)
    assert refused["body"] == b'{"ticket_id": "7"}'


async def test_what_nobody_can_read_is_failed_and_can_be_mended(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    delivery.render = lambda ticket, comment: b'{"ticket_id": "7", "from_email": a "b" c}'
    await delivery.mail("anna@example.com", "text")
    assert (await run()).outcomes == Counter({Outcome.RECOVERED: 1})
    (email,) = await emails(pool)
    assert (email["processing_status"], email["origin"]) == ("failed", "recovered")
    assert await pool.fetchval("SELECT id FROM quarantined_webhooks") == email["id"]


async def test_an_event_that_is_no_email_is_heeded_and_no_gap(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    event = {"type": "zen:event-type:user.deleted", "account_id": 1, "id": "e", "detail": {}}
    delivery.faults = Faults(refuse=1.0)
    delivery.render = lambda ticket, comment: json.dumps(event, indent=3).encode()
    await delivery.mail("anna@example.com", "text")
    assert (await run()).outcomes == Counter({Outcome.NO_EMAIL: 1})


async def test_no_gap_is_left_where_a_list_breaks_off(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    for number in range(250):
        delivery.account.offset = timedelta(seconds=number - 300)
        await delivery.mail(f"{number}@example.com", str(number))
    api.instead = lambda asked: Answer(500) if "page[after]" in asked.query else None
    with pytest.raises(ZendeskAwayError):
        await run()
    api.instead = None
    tally = await run()
    assert tally.outcomes == Counter({Outcome.RECOVERED: 250})
    assert len({email["raw_body_text"] for email in await emails(pool)}) == 250
    # The third run has a single page to look at.
    before = len(api.asked_for("/invocations"))
    await run()
    assert len(api.asked_for("/invocations")) - before <= 3


async def test_a_cursor_that_zendesk_does_not_know_is_begun_from_the_top(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    for number in range(150):
        await delivery.mail(f"{number}@example.com", str(number))
    refusals = [Answer(400, {"error": "InvalidCursor"})]
    api.instead = lambda asked: (
        refusals.pop() if refusals and "page[after]" in asked.query else None
    )
    assert (await run()).outcomes[Outcome.RECOVERED] == 150
    assert refusals == []


async def test_a_webhook_that_was_deleted_is_named_with_its_mend(
    pool: "Pool[asyncpg.Record]", api: FakeApi, settings: Settings, run: Callable[..., Any]
) -> None:
    with pytest.raises(WebhookUnknownError, match="MAILROOM_ZENDESK_WEBHOOK_ID"):
        await run()
    client = ZendeskClient(settings)
    named = settings.model_copy(update={"zendesk_webhook_id": "01GONE"})
    with pytest.raises(WebhookUnknownError, match="deleted"):
        await InvocationLine(named, pool, client).run_once(start=START)
    await client.close()
    trouble = await pool.fetchval("SELECT trouble FROM zendesk_cursors")
    assert "01GONE" in trouble


@pytest.mark.parametrize("is_named", [True, False])
async def test_no_gap_is_left_where_another_webhook_takes_the_place_of_one(
    pool: "Pool[asyncpg.Record]",
    settings: Settings,
    delivery: Delivery,
    run: Callable[..., Any],
    is_named: bool,
) -> None:
    """It is made anew while nobody looks; the account's clock is that of two hours ago."""
    account, delivery.faults = delivery.account, Faults(refuse=1.0)
    account.offset = timedelta(hours=-2)
    await delivery.mail("anna@example.com", "one")
    client = ZendeskClient(settings)
    long_ago = datetime.now(UTC) - timedelta(hours=3)
    await InvocationLine(settings, pool, client).run_once(start=long_ago)
    del account.webhooks[delivery.webhook.id]
    long_ended = "UPDATE zendesk_cursors SET ended_at = ended_at - interval '2 days', trouble = 'x'"
    await pool.execute(long_ended)
    account.offset = timedelta(hours=-1)
    delivery.webhook = account.add_webhook(ENDPOINT)
    await delivery.mail("berta@example.com", "two")
    named = {"zendesk_webhook_id": delivery.webhook.id} if is_named else {}
    line = InvocationLine(settings.model_copy(update=named), pool, client)
    tally = await line.run_once()
    await client.close()
    assert tally.outcomes == Counter({Outcome.RECOVERED: 1})
    assert [email["raw_body_text"] for email in await emails(pool)] == ["one", "two"]
    # The one that is gone is not late for ever.
    (line_seen,) = (await find_gaps(pool)).lines
    assert line_seen.lag is not None
    assert line_seen.lag < timedelta(days=1)
    assert line_seen.trouble is None


async def test_records_of_an_odd_shape_are_kept_and_the_rest_goes_on(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    await delivery.mail("anna@example.com", "text")
    now = delivery.account.now
    odd: Any = Attempt(status=["?"], completed_at=now)  # type: ignore[arg-type]
    invocation = Invocation("ODD", "terminated", now, None, [odd])
    delivery.webhook.invocations += [invocation, Invocation("GONE", "terminated", now)]
    delivery.webhook.invocations.append(Invocation("ODD2", {"a": 1}, now))  # type: ignore[arg-type]
    tally = await run()
    assert tally.outcomes == Counter({Outcome.RECOVERED: 1, Outcome.ODD: 1, Outcome.NO_REQUEST: 1})
    kept = await pool.fetch("SELECT kind, item FROM zendesk_oddities ORDER BY id")
    assert [row["kind"] for row in kept] == ["invocation", "attempt"]
    assert json.loads(kept[0]["item"])["id"] == "ODD2"
    assert await pool.fetchval("SELECT sum(odd) FROM zendesk_cursors") == 1
    # The list is looked through again, and it is one all the same.
    await run()
    assert await pool.fetchval("SELECT sum(odd) FROM zendesk_cursors") == 1


async def test_a_dry_run_tells_and_changes_nothing(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    await delivery.mail("anna@example.com", "text")
    tally = await run(dry_run=True)
    assert tally.missed == Counter({"terminated": 1})
    assert "1 terminated" in str(tally)
    for table in ("zendesk_cursors", "zendesk_invocations", "incoming_emails"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_what_was_missed_before_the_first_look_is_left_to_a_backfill(
    pool: "Pool[asyncpg.Record]", settings: Settings, delivery: Delivery
) -> None:
    delivery.account.offset = timedelta(hours=-2)
    delivery.faults = Faults(refuse=1.0)
    await delivery.mail("anna@example.com", "text")
    client = ZendeskClient(settings)
    tally = await InvocationLine(settings, pool, client).run_once()
    await client.close()
    assert tally.missed == Counter()


async def test_lag_backlog_and_finds_are_metrics_and_a_line_of_the_overview(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    counts = GapCounts(pool, watched_every=7_200)
    assert await counts.look() == []
    await counts.close()
    delivery.faults = Faults(refuse=1.0)
    await delivery.mail("anna@example.com", "text")
    await run()
    await pool.execute(
        "INSERT INTO zendesk_invocations (id, webhook_id, status) VALUES ('I', 'W', 'terminated');"
    )
    samples = await samples_of(pool, watched_every=7_200)
    assert 0 <= samples.pop(("mailroom_gap_lag_seconds", "invocations")) < WAIT_SECONDS
    assert samples.pop(("mailroom_gap_interval_seconds", "invocations")) == 7_200
    assert samples == {
        ("mailroom_gap_emails_total", "invocations"): 1,
        ("mailroom_gap_emails_total", "backfill"): 0,
        ("mailroom_gap_odd_total", "invocations"): 0,
        ("mailroom_gap_waiting",): 1,
    }
    # Without a token the cursors stay, and nobody is late.
    assert await samples_of(pool, watched_every=None) == samples
    gaps = (await Lookout(pool).look()).gaps
    assert [(line.name, line.found) for line in gaps.lines] == [("invocations", 1)]
    assert gaps.waiting == 1


async def samples_of(
    pool: "Pool[asyncpg.Record]", *, watched_every: float | None
) -> dict[tuple[str, ...], float]:
    """What Prometheus sees of the lines."""
    counts = GapCounts(pool, watched_every=watched_every)
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := await counts.look()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await counts.close()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in found
        for sample in metric.samples
    }


async def test_one_whose_attempts_cannot_be_read_keeps_no_other_waiting(
    pool: "Pool[asyncpg.Record]", api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    for number in range(3):
        await delivery.mail(f"{number}@example.com", str(number))
    path = f"/{delivery.webhook.invocations[0].id}/attempts"
    api.instead = lambda asked: Answer(200, {"attempts": None}) if path in asked.path else None
    tally = await run()
    assert tally.outcomes == Counter({Outcome.RECOVERED: 2, Outcome.ODD: 1})
    assert tally.waiting == 0
    (kept,) = await pool.fetch("SELECT kind, item FROM zendesk_oddities")
    assert kept["kind"] == "attempts"


async def test_one_that_the_database_refuses_is_kept_and_holds_up_no_other(
    pool: "Pool[asyncpg.Record]", delivery: Delivery, run: Callable[..., Any]
) -> None:
    await pool.execute(
        "ALTER TABLE incoming_emails ADD CONSTRAINT no_spam CHECK (raw_body_text <> 'spam')"
    )
    delivery.faults = Faults(refuse=1.0)
    for text in ("spam", "one", "two"):
        await delivery.mail(f"{text}@example.com", text)
    tally = await run()
    assert tally.outcomes == Counter({Outcome.RECOVERED: 2, Outcome.QUARANTINED: 1})
    (kept,) = await pool.fetch("SELECT reason, is_signed FROM quarantined_webhooks")
    assert (kept["reason"], kept["is_signed"]) == ("unstorable", True)


async def test_one_that_fails_for_a_defect_of_ours_is_put_off_and_holds_up_no_other(
    pool: "Pool[asyncpg.Record]",
    delivery: Delivery,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery.faults = Faults(refuse=1.0)
    for number in range(3):
        await delivery.mail(f"{number}@example.com", str(number))
    failing = [invocation.id for invocation in delivery.webhook.invocations[:2]]

    async def list_some(client: ZendeskClient, webhook_id: str, invocation_id: str) -> Any:
        if invocation_id in failing:
            raise KeyError(invocation_id)
        return await list_attempts(client, webhook_id, invocation_id)

    monkeypatch.setattr(attempts, "list_attempts", list_some)
    tally = await run()
    assert tally.outcomes == Counter({Outcome.RECOVERED: 1, Outcome.WAITING: 2})
    assert tally.waiting == 2
    # The one that fails still does not keep the other from its turn.
    failing.pop()
    assert (await run()).outcomes == Counter({Outcome.RECOVERED: 1, Outcome.WAITING: 1})
    failing.clear()
    tally = await run()
    assert (tally.outcomes, tally.waiting) == (Counter({Outcome.RECOVERED: 1}), 0)


async def test_what_the_quarantine_has_no_room_for_waits_and_holds_up_no_other(
    pool: "Pool[asyncpg.Record]", settings: Settings, delivery: Delivery, run: Callable[..., Any]
) -> None:
    delivery.faults = Faults(refuse=1.0)
    delivery.render = lambda ticket, comment: b'{"ticket_id": "7"}'
    for number in range(3):
        await delivery.mail(f"{number}@example.com", "refused")
    client = ZendeskClient(settings)
    full = settings.model_copy(update={"quarantine_max_rows": 0})
    line = InvocationLine(full, pool, client)
    tally = await line.run_once(start=START)
    assert (tally.outcomes, tally.waiting) == (Counter({Outcome.WAITING: 3}), 3)
    assert "no room" in await pool.fetchval("SELECT trouble FROM zendesk_cursors")
    delivery.render = None
    await delivery.mail("anna@example.com", "text")
    assert (await line.run_once()).outcomes == Counter({Outcome.RECOVERED: 1})
    await client.close()
    assert (await run()).outcomes == Counter({Outcome.QUARANTINED: 3})
    assert await pool.fetchval("SELECT count(*) FROM quarantined_webhooks") == 3
    await run()
    assert await pool.fetchval("SELECT trouble FROM zendesk_cursors") is None


async def test_a_list_that_does_not_get_on_ends(
    api: FakeApi, delivery: Delivery, run: Callable[..., Any]
) -> None:
    await delivery.mail("anna@example.com", "text")
    listed = [{"id": "A", "status": "?", "latest_completed_at": delivery.account.now.isoformat()}]
    page = {"invocations": listed, "meta": {"has_more": True, "after_cursor": "same"}}
    api.instead = lambda asked: Answer(200, page) if "/invocations" in asked.path else None
    with pytest.raises(ZendeskShapeError, match="does not get on"):
        await run()
