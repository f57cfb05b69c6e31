"""The watch over silence on a real database, beside a fake Zendesk in which each thing goes wrong
that can."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest
from support import SECRET, make_settings
from zendesk.account import Account, Invocation, Webhook
from zendesk.answers import Answer
from zendesk.rules_api import TRIGGERS, add_trigger
from zendesk.server import FakeApi, running_api

from app.alerts.alarms import Trouble, begin, find_open
from app.cli.zendesk_checks import NotWellError, zendesk_check
from app.models.alarm import AlarmKind
from app.setting_groups.secrets import parse_secrets
from app.zendesk.client import ZendeskClient
from app.zendesk.email_hours import count_up, look
from app.zendesk.own_webhooks import find_own_webhooks
from app.zendesk.silence import see, watch

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

ENDPOINT = "https://mailroom.example.com/mail/api/v1/zendesk/webhook"
# Twelve emails an hour for three weeks, until so long ago.
COME = """
INSERT INTO incoming_emails (from_email, created_at, received_at)
SELECT 'erika@example.com', at, at
FROM generate_series(now() - interval '3 weeks', now() - $1::interval, '5 minutes') AS at
"""
NOW = "INSERT INTO incoming_emails (from_email, created_at) VALUES ('erika@example.com', now())"
ALIVE = timedelta(minutes=1)
SILENT = timedelta(hours=3)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with running_api(Account()) as api:
        add_trigger(api.account, api.account.add_webhook(ENDPOINT, secret=SECRET))
        yield api


def webhook(api: FakeApi) -> Webhook:
    return next(iter(api.account.webhooks.values()))


def call(api: FakeApi, *answers: str | int) -> None:
    """Calls of the webhook, one each ten minutes until now."""
    for number, answer in enumerate(reversed(answers)):
        at = api.account.now - timedelta(minutes=10 * (len(answers) - 1 - number))
        status = answer if isinstance(answer, str) else "terminated"
        code = answer if isinstance(answer, int) else None
        webhook(api).invocations.append(Invocation(api.account.new_ulid(), status, at, code))


async def told(pool: Pool) -> list[str]:
    return [f"{alarm.kind}: {alarm.text}" for alarm in await find_open(pool)]


async def test_while_email_comes_there_is_no_alarm_and_the_summary_says_when_there_would_be(
    pool: Pool, api: FakeApi
) -> None:
    await pool.execute(COME, ALIVE)
    said = await watch(make_settings(**api.settings), pool)
    assert said.startswith("the last email came ")
    assert "a silence would be unusual from" in said
    assert await told(pool) == []
    # Nothing is searched for while there is no silence.
    assert api.asked_for("/search/") == []


async def test_a_quiet_day_is_no_alarm(pool: Pool, api: FakeApi) -> None:
    await pool.execute(COME, SILENT)
    said = await watch(make_settings(**api.settings), pool)
    assert said.endswith("usually come; Zendesk has no new ticket by email either: a quiet day")
    assert await told(pool) == []


async def test_an_alarm_of_silence_ends_with_the_next_email(pool: Pool, api: FakeApi) -> None:
    await pool.execute(COME, SILENT)
    api.account.mail("max@example.com", "Hallo?")
    await watch(make_settings(**api.settings), pool)
    [text] = await told(pool)
    assert text.startswith("silence: no email came for 3 h")
    assert "Zendesk has new tickets by email, and did not call the webhook" in text
    await pool.execute(NOW)
    await watch(make_settings(**api.settings), pool)
    assert await told(pool) == []


async def test_what_was_fetched_from_zendesk_hides_no_silence(pool: Pool, api: FakeApi) -> None:
    await pool.execute(COME, SILENT)
    # An answer on an old ticket: no new ticket tells of it.
    await pool.execute("INSERT INTO incoming_emails (origin) VALUES ('backfill')")
    await watch(make_settings(**api.settings), pool)
    [text] = await told(pool)
    assert text.startswith("silence: no email came for 3 h")
    assert "did not call the webhook" in text


async def missing(api: FakeApi) -> None:
    api.account.webhooks.clear()


async def inactive(api: FakeApi) -> None:
    webhook(api).status = "inactive"


async def no_trigger(api: FakeApi) -> None:
    api.account.parts[TRIGGERS][0]["active"] = False


async def deleted_trigger(api: FakeApi) -> None:
    api.account.parts[TRIGGERS].clear()


async def broken(api: FakeApi) -> None:
    call(api, "circuit broken", "throttled", "circuit broken", 503, 200)


async def changed(api: FakeApi) -> None:
    call(api, 401, "throttled", 401, 401, 200)


async def moved_away(api: FakeApi) -> None:
    call(api, 404, 404, 404, 200)


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (missing, "Zendesk has no webhook that leads to Mailroom"),
        (inactive, "the webhook is inactive at Zendesk"),
        (no_trigger, "no active trigger at Zendesk calls the webhook"),
        (deleted_trigger, "no active trigger at Zendesk calls the webhook"),
        (broken, "holds its calls of the webhook back"),
        (changed, "the webhook's secret is another one by now"),
        (moved_away, "Zendesk calls the webhook in vain"),
    ],
)
async def test_what_zendesk_says_is_an_alarm_whatever_the_hour(
    pool: Pool, api: FakeApi, fail: Any, said: str
) -> None:
    await pool.execute(COME, timedelta(minutes=45))
    settings = make_settings(**api.settings, zendesk_webhook_id=webhook(api).id)
    await fail(api)
    await watch(settings, pool)
    [text] = await told(pool)
    assert said in text
    # It is asked for the second time, and is the same alarm.
    await watch(settings, pool)
    assert len(await told(pool)) == 1
    assert await pool.fetchval("SELECT count(*) FROM alarms") == 1


async def test_a_secret_of_zendesks_that_is_not_set_is_an_alarm_before_anything_is_refused(
    pool: Pool, api: FakeApi
) -> None:
    await pool.execute(COME, ALIVE)
    settings = make_settings(**api.settings)
    webhook(api).secret = "one that Zendesk made anew"
    await watch(settings, pool)
    [alarm] = await find_open(pool)
    assert alarm.text == (
        f"Zendesk signs the calls of webhook {webhook(api).id} with a secret that is not set here, "
        "and they are refused"
    )
    assert alarm.mend.startswith("add it to MAILROOM_WEBHOOK_SECRETS (`mailroom zendesk setup`")
    me = Answer(200, {"user": {"id": 1, "role": "admin"}})
    api.instead = lambda asked: me if asked.path.endswith("/users/me.json") else None
    with pytest.raises(NotWellError, match="with a secret that is not set here"):
        await zendesk_check(settings)
    both = make_settings(
        **api.settings, webhook_secrets=parse_secrets(f"{SECRET},{webhook(api).secret}")
    )
    await watch(both, pool)
    assert await told(pool) == []
    assert "accepts the token" in await zendesk_check(both)


async def test_where_zendesk_tells_no_secret_nothing_is_said_of_it(
    pool: Pool, api: FakeApi
) -> None:
    await pool.execute(COME, ALIVE)
    webhook(api).secret = "one that Zendesk made anew"
    api.instead = lambda asked: Answer(403, {}) if "signing_secret" in asked.path else None
    await watch(make_settings(**api.settings), pool)
    assert await told(pool) == []


async def test_a_webhook_for_events_needs_no_trigger(pool: Pool, api: FakeApi) -> None:
    await pool.execute(COME, ALIVE)
    webhook(api).further["subscriptions"] = ["zen:event-type:ticket.comment_added"]
    api.account.parts[TRIGGERS].clear()
    await watch(make_settings(**api.settings), pool)
    assert await told(pool) == []


async def test_where_it_is_not_known_which_webhook_is_ours_silence_says_so(
    pool: Pool, api: FakeApi
) -> None:
    webhook(api).endpoint = "https://gateway.example.com/mail"
    await pool.execute(COME, ALIVE)
    await watch(make_settings(**api.settings), pool)
    assert await told(pool) == []
    await pool.execute("DELETE FROM incoming_emails WHERE created_at > now() - interval '3 hours'")
    api.account.mail("max@example.com", "Hallo?")
    await watch(make_settings(**api.settings), pool)
    [text] = await told(pool)
    assert "name Mailroom's in MAILROOM_ZENDESK_WEBHOOK_ID" in text


async def test_without_a_token_silence_is_known_and_not_its_cause(pool: Pool) -> None:
    await pool.execute(COME, SILENT)
    settings = make_settings()
    await watch(settings, pool)
    [text] = await told(pool)
    assert text.endswith(
        "Mailroom does not know why (set MAILROOM_ZENDESK_TOKEN, and Zendesk is asked)"
    )
    await pool.execute(
        "INSERT INTO quarantined_webhooks (received_at, reason)"
        " SELECT now(), 'signature' FROM generate_series(1, 3)"
    )
    await watch(settings, pool)
    [text] = await told(pool)
    assert "webhooks came whose signature is wrong" in text


async def test_a_token_that_is_refused_is_one_alarm_and_no_storm(pool: Pool, api: FakeApi) -> None:
    await pool.execute(COME, ALIVE)
    settings = make_settings(**{**api.settings, "zendesk_token": "wrong"})
    for _ in range(5):
        await watch(settings, pool)
    [text] = await told(pool)
    assert text.startswith("zendesk: Zendesk's API answers 401: ")
    assert len(api.asked) == 1
    await watch(make_settings(**api.settings), pool)
    assert await told(pool) == []


async def test_while_zendesk_is_away_an_alarm_stays_until_an_email_comes(
    pool: Pool, api: FakeApi
) -> None:
    await pool.execute(COME, ALIVE)
    settings = make_settings(**api.settings)
    await inactive(api)
    await watch(settings, pool)
    before = await told(pool)
    api.answers.extend([Answer(503)] * 2)
    await watch(settings, pool)
    assert await told(pool) == before != []
    await pool.execute(NOW)
    await watch(settings, pool)
    assert await told(pool) == []


async def test_looking_changes_nothing(pool: Pool, api: FakeApi) -> None:
    await pool.execute(COME, SILENT)
    await inactive(api)
    seen = await see(make_settings(**api.settings), pool)
    assert seen.verdict.trouble is not None
    assert await told(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM email_hours") == 0


async def test_the_counts_are_those_of_the_table_however_often_they_are_brought_up(
    pool: Pool,
) -> None:
    await pool.execute(COME, timedelta(hours=5))
    await count_up(pool)
    for _ in range(3):
        await pool.execute(NOW)
        await pool.execute("INSERT INTO incoming_emails (origin) VALUES ('recovered')")
        await count_up(pool)
    counted = await pool.fetch(
        "SELECT date_trunc('hour', created_at, 'UTC') AS hour, count(*) AS emails"
        " FROM incoming_emails WHERE origin = 'webhook' GROUP BY 1"
    )
    found = await look(pool)
    assert {hour: n for hour, n in found.hours.items() if n} == {
        row["hour"]: row["emails"] for row in counted
    }
    assert found.last_email_at == await pool.fetchval(
        "SELECT max(created_at) FROM incoming_emails WHERE origin = 'webhook'"
    )
    # Emails that are pruned or erased had come all the same.
    await pool.execute("DELETE FROM incoming_emails")
    await count_up(pool)
    after = await look(pool)
    assert after.hours == found.hours
    assert after.last_email_at is not None
    assert after.last_email_at > datetime.now(UTC) - timedelta(hours=2)


async def test_where_nothing_came_there_is_nothing_to_count(pool: Pool) -> None:
    assert await watch(make_settings(), pool) == "no email came yet"


async def test_without_a_token_nobody_goes_on_telling_of_suspended_mail(pool: Pool) -> None:
    await begin(pool, AlarmKind.SUSPENDED, Trouble("Zendesk deletes 2", "see"), key="2026-11-30")
    await watch(make_settings(), pool)
    assert await told(pool) == []


async def test_a_busy_desk_that_nobody_answers_is_alarmed_though_a_page_holds_minutes_of_it(
    pool: Pool, api: FakeApi
) -> None:
    await pool.execute(COME, timedelta(minutes=15))
    for number in range(240):
        at = api.account.now - timedelta(seconds=3 * (239 - number))
        webhook(api).invocations.append(Invocation(api.account.new_ulid(), "terminated", at, 401))
    await watch(make_settings(**api.settings), pool)
    assert "are answered 401" in " ".join(await told(pool))


async def test_a_clock_that_differs_from_zendesks_is_an_alarm_of_its_own(
    pool: Pool, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(**api.settings)
    await pool.execute(COME, ALIVE)
    await watch(settings, pool)
    assert await told(pool) == []
    date = "Thu, 26 Nov 2020 10:00:00 GMT"
    api.instead = lambda asked: Answer(200, {"webhooks": []}, {"date": date})
    await watch(settings, pool)
    [text] = await told(pool)
    assert text.startswith("zendesk: this machine's clock is")
    assert text.endswith("seconds ahead of Zendesk's")
    me = {"webhooks": [], "user": {"id": 1, "role": "admin"}}
    api.instead = lambda asked: Answer(200, me, {"date": date})
    with pytest.raises(NotWellError, match="ahead of Zendesk's: let NTP set it"):
        await zendesk_check(settings)
    api.instead = None
    await watch(settings, pool)
    assert await told(pool) == []


async def test_another_mailroom_of_the_account_is_told_from_this_one_by_its_address(
    pool: Pool, api: FakeApi
) -> None:
    api.account.add_webhook("https://staging.example.com/api/v1/zendesk/webhook")
    settings = make_settings(**api.settings)
    await watch(settings, pool)
    [text] = await told(pool)
    assert "several Mailrooms (mailroom.example.com/mail/api/" in text
    me = Answer(200, {"user": {"id": 1, "role": "admin"}})
    api.instead = lambda asked: me if asked.path.endswith("/users/me.json") else None
    with pytest.raises(NotWellError, match="MAILROOM_PUBLIC_URL"):
        await zendesk_check(settings)
    named = make_settings(**api.settings, public_url="https://MAILROOM.example.com/mail/")
    await watch(named, pool)
    assert await told(pool) == []
    client = ZendeskClient(named)
    assert [own.endpoint for own in await find_own_webhooks(client, named)] == [ENDPOINT]
    await client.close()


async def test_no_more_are_looked_at_for_the_last_email_than_are_bounded(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute(COME, SILENT)
    await count_up(pool)
    exact = (await look(pool)).last_email_at
    assert exact is not None
    # As after a backfill: what came last is behind more than are looked at.
    await pool.execute(
        "INSERT INTO incoming_emails (from_email, origin) SELECT '', 'backfill'"
        " FROM generate_series(1, 20)"
    )
    assert (await look(pool)).last_email_at == exact
    monkeypatch.setattr("app.zendesk.email_hours.LOOKED_AT_FOR_LAST", 20)
    found = (await look(pool)).last_email_at
    assert found == exact.replace(minute=0, second=0, microsecond=0)
