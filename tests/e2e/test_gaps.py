"""`mailroom gaps` and `mailroom backfill`, against the fake account."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from support import Services, wait_until
from zendesk.account import WEBHOOK_SECRET, Account
from zendesk.answers import Answer, Asked
from zendesk.server import FakeApi, api_in_thread

pytestmark = pytest.mark.long

AGO = timedelta(hours=5)


@pytest.fixture
def api(services: Services) -> Iterator[FakeApi]:
    """An account in which sixty emails came five hours ago, none of which was delivered."""
    account = Account(offset=-AGO)
    account.add_webhook("https://mail.example.com/api/v1/zendesk/webhook")
    for number in range(60):
        account.mail(f"{number}@example.com", f"text {number}")
    account.parts |= {"export size": 20, "exported_until": datetime.now(UTC)}
    with api_in_thread(account) as api:
        api.unlimited()
        services.environment |= api.environment | {
            "MAILROOM_ZENDESK_SHARE": "1",
            "MAILROOM_ZENDESK_EXPORTS_PER_MINUTE": "1000",
            "MAILROOM_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        }
        yield api


def texts(connection: "psycopg.Connection[dict[str, object]]") -> list[Any]:
    rows = connection.execute("SELECT raw_body_text FROM incoming_emails ORDER BY 1").fetchall()
    return [row["raw_body_text"] for row in rows]


def test_a_backfill_that_was_killed_is_gone_on_with(
    services: Services, api: FakeApi, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    since = (datetime.now(UTC) - AGO - timedelta(minutes=1)).isoformat()
    dry = services.run("mailroom", "backfill", "--since", since, "--dry-run")
    assert "60 tickets, 60 compared, 60 emails missing" in dry.stdout
    assert texts(connection) == []

    left = [33]

    def hold(asked: Asked) -> Answer | None:
        if "/comments" not in asked.path:
            return None
        left[0] -= 1
        # It waits for as long, in the middle of a page.
        return Answer(429, {}, {"retry-after": "3000"}) if left[0] < 0 else None

    api.instead = hold
    process = services.start("mailroom", "backfill", "--since", since)
    wait_until(lambda: left[0] < 0 and len(texts(connection)) >= 33, services.log)
    services.kill_group(process)
    process.wait()
    assert 33 <= len(texts(connection)) < 60

    busy = services.run("mailroom", "backfill", "--since", since)
    assert busy.returncode == 1
    assert "zendesk-backfill is being done by" in busy.stderr
    connection.execute("UPDATE chores SET lease_expires_at = now()")
    api.instead = None
    before = len(api.asked_for("/comments"))
    done = services.run("mailroom", "backfill", "--since", since)
    assert done.returncode == 0, done.stderr
    assert "40 tickets" in done.stdout
    assert len(api.asked_for("/comments")) - before == 40
    assert texts(connection) == sorted(f"text {number}" for number in range(60))


def test_gaps_runs_both_lines_once_and_says_what_they_found(
    services: Services, api: FakeApi, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    first = services.run("mailroom", "gaps")
    assert first.returncode == 0, first.stderr
    assert "zendesk-invocations: 0 calls not delivered" in first.stdout
    assert "zendesk-tickets: 0 tickets" in first.stdout
    assert "mailroom backfill --since" in first.stdout

    api.account.offset = timedelta(seconds=5)
    api.account.mail("anna@example.com", "just now")
    api.account.parts["exported_until"] = datetime.now(UTC) + timedelta(minutes=1)
    dry = services.run("mailroom", "gaps", "--dry-run")
    assert "1 emails missing" in dry.stdout
    assert texts(connection) == []
    done = services.run("mailroom", "gaps")
    assert "1 emails missing" in done.stdout
    assert texts(connection) == ["just now"]

    wrong = services.run("mailroom", "gaps", MAILROOM_ZENDESK_TOKEN="wrong")
    assert wrong.returncode == 1
    assert "answers 401: see MAILROOM_ZENDESK_EMAIL, MAILROOM_ZENDESK_TOKEN" in wrong.stderr
    without = services.run("mailroom", "gaps", MAILROOM_ZENDESK_TOKEN="")
    assert (without.returncode, without.stdout) == (1, "")
    assert "set MAILROOM_ZENDESK_SUBDOMAIN" in without.stderr


def test_workers_look_behind_the_webhook_and_process_what_they_find(
    services: Services, api: FakeApi, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    services.start_worker(MAILROOM_ZENDESK_WATCH_SECONDS="1")
    begun = "SELECT FROM zendesk_cursors WHERE ended_at IS NOT NULL"
    wait_until(lambda: len(connection.execute(begun).fetchall()) == 2, services.log)
    api.account.offset = timedelta(seconds=5)
    api.account.mail("anna@example.com", "just now")
    api.account.parts["exported_until"] = datetime.now(UTC) + timedelta(minutes=1)
    done = "SELECT processing_status, origin FROM incoming_emails"
    wait_until(
        lambda: (
            connection.execute(done).fetchall()
            == [{"processing_status": "completed", "origin": "backfill"}]
        ),
        services.log,
    )


@pytest.mark.parametrize(
    ("since", "settings", "said"),
    [
        ("2999-01-01", {}, "in the past"),
        ("yesterday", {}, "has to be a time such as"),
        ("2020-01-01", {"MAILROOM_KEEP_COMPLETED_DAYS": "30"}, "MAILROOM_KEEP_COMPLETED_DAYS"),
    ],
)
def test_a_backfill_that_makes_no_sense_is_refused(
    services: Services, api: FakeApi, since: str, settings: dict[str, str], said: str
) -> None:
    result = services.run("mailroom", "backfill", "--since", since, **settings)
    assert result.returncode != 0
    assert said in result.stderr
    assert api.asked == []
