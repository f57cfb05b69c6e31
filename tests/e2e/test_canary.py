"""The canary, through real web and worker processes."""

import json
from collections.abc import Callable
from uuid import uuid4

import httpx
import psycopg
from support import SECRET, Services, email, signed, wait_until

from app.intake.canary import canary_body

WEBHOOK = "/api/v1/zendesk/webhook"
OFTEN = {"MAILROOM_CANARY_SECONDS": "0.2", "MAILROOM_ALERT_SETTLE_SECONDS": "0"}
Connection = psycopg.Connection[dict[str, object]]


def canary(connection: Connection) -> dict[str, object]:
    return connection.execute("SELECT * FROM canaries").fetchone() or {"completed_total": 0}


def alarms(connection: Connection) -> list[object]:
    query = "SELECT text FROM alarms WHERE kind = 'canary' AND ended_at IS NULL"
    return [row["text"] for row in connection.execute(query).fetchall()]


def is_told(connection: Connection, part: str) -> Callable[[], bool]:
    return lambda: any(part in str(text) for text in alarms(connection))


def test_a_canary_goes_the_whole_way_and_is_nowhere_else(
    services: Services, connection: Connection
) -> None:
    services.environment |= OFTEN
    services.write_handler(
        "from pathlib import Path\n"
        "async def handle(email, context):\n"
        f"    Path({str(services.folder / 'handled')!r}).touch()\n"
    )
    services.start_web()
    services.start_worker()
    wait_until(lambda: int(str(canary(connection)["completed_total"])) >= 2, services.log)
    seen = canary(connection)
    assert 0 < seen["accept_seconds"] <= seen["claim_seconds"] <= seen["complete_seconds"]  # type: ignore[operator]
    assert (seen["failed_total"], alarms(connection)) == (0, [])

    # Neither an email, nor a refused webhook, nor anything that happened to one.
    for table in ("incoming_emails", "quarantined_webhooks", "email_events", "sync_events"):
        assert connection.execute(f"SELECT FROM {table}").fetchall() == []
    assert not (services.folder / "handled").exists()
    token = {"Authorization": "Bearer token"}
    assert httpx.get(f"{services.url}/api/v1/jobs", headers=token).json()["items"] == []

    def metrics() -> str:
        return httpx.get(f"{services.url}/metrics", headers=token).text

    wait_until(lambda: 'mailroom_canary_seconds{step="completed"}' in metrics(), metrics)
    told = metrics()
    assert "mailroom_canary_age_seconds" in told
    assert "mailroom_canary_interval_seconds 60.2" in told
    assert 'mailroom_canaries_total{outcome="failed"} 0.0' in told
    assert 'mailroom_webhooks_total{result="acknowledged"} 0.0' in told
    assert "mailroom_accept_duration_seconds_count 0.0" in told

    findings = json.loads(services.run("mailroom", "doctor", "--json").stdout)
    (found,) = [finding for finding in findings if finding["check"] == "canary"]
    assert found["is_well"]
    assert "a canary went the whole way" in found["explanation"]


def test_without_a_worker_the_web_process_tells_that_emails_are_not_queued(
    services: Services, connection: Connection
) -> None:
    services.environment |= OFTEN | {"MAILROOM_CANARY_DEADLINE_SECONDS": "1"}
    services.start_web()
    wait_until(is_told(connection, "accepted, and not queued within 1 seconds"), services.log)
    # Those who are told are told by the web process as well.
    told = "SELECT FROM chores WHERE name = 'alerts' AND last_ok_at IS NOT NULL"
    wait_until(lambda: connection.execute(told).fetchone() is not None, services.log)
    services.start_worker(MAILROOM_CANARY_DEADLINE_SECONDS="60")
    wait_until(lambda: alarms(connection) == [], services.log)


def test_a_worker_tells_that_the_webhook_does_not_answer_or_refuses(
    services: Services, connection: Connection
) -> None:
    services.start_worker(**OFTEN)
    wait_until(is_told(connection, "the webhook does not answer at http://127.0.0.1"), services.log)
    web = services.start_web(MAILROOM_WEBHOOK_SECRETS="quite another secret")
    wait_until(is_told(connection, "answers 401"), services.log)
    # It would be there each minute.
    assert connection.execute("SELECT FROM quarantined_webhooks").fetchall() == []
    services.kill_group(web)
    services.start_web()
    wait_until(lambda: alarms(connection) == [], services.log)


def test_nobody_can_pass_off_an_email_as_a_canary(
    shared_web: Services, shared_database_url: str
) -> None:
    token = uuid4()

    def post(**request: object) -> httpx.Response:
        return httpx.post(shared_web.url + WEBHOOK, **request)  # type: ignore[arg-type]

    # Whoever does not know the secret gets nothing done, and hides nothing.
    assert post(**signed(canary_body(token), secret="wrong")).status_code == 401
    assert post(content=canary_body(token)).status_code == 415
    # Nor does who replays one that was never sent, or is over.
    answer = post(**signed(canary_body(token)))
    assert (answer.status_code, answer.json()["status"]) == (200, "acknowledged")
    # What has the field beside an email is an email, and what is nearly one is kept as ever.
    beside = signed(email(mailroom_canary=str(token)))
    assert post(**beside).json()["status"] == "accepted"
    nearly = canary_body(token).replace(b"}", b' , "subject": "Rechnung"}')
    assert post(**signed(nearly, secret=SECRET)).status_code == 400
    with psycopg.connect(shared_database_url) as connection:
        kept = connection.execute("SELECT reason FROM quarantined_webhooks").fetchall()
        assert kept == [("invalid",)]
        assert connection.execute("SELECT FROM canaries").fetchall() == []
