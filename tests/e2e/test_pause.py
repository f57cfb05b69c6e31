"""Processing is paused and resumed by page, API and command, with real processes."""

from typing import Any

import httpx
import lxml.html
import psycopg
from support import Services, create_operators, email, enter, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]

TOKEN = {"Authorization": "Bearer token"}
# Each has looked for work at least once by then.
BEATEN = "SELECT name FROM workers WHERE seen_at > started_at + interval '4 seconds'"
API = "/api/v1/processing"


def post(web: Services, **fields: Any) -> str:
    answer = httpx.post(web.url + WEBHOOK_PATH, **signed(email(**fields)), timeout=60)
    assert answer.status_code == 200, answer.text
    email_id: str = answer.json()["email_id"]
    return email_id


def status_of(connection: Connection, email_id: str) -> str:
    row = connection.execute(
        "SELECT processing_status FROM incoming_emails WHERE id = %s", [email_id]
    ).fetchone()
    assert row is not None
    return str(row["processing_status"])


def paused_metric(client: httpx.Client) -> str:
    text = client.get("/metrics", headers=TOKEN).text
    return next(line for line in text.splitlines() if line.startswith("mailroom_processing_paused"))


def test_a_pause_is_heeded_shown_everywhere_and_outlives_restarts(
    services: Services, connection: Connection
) -> None:
    create_operators(services)
    services.start_web()
    worker = services.start_worker()
    first = post(services, subject="first")
    wait_until(lambda: status_of(connection, first) == "completed", services.log)
    with httpx.Client(base_url=services.url, timeout=60, follow_redirects=True) as client:
        enter(client, services)
        token = lxml.html.fromstring(client.get("/").text).xpath(
            "string(//input[@name='token']/@value)"
        )
        form = {"token": token, "action": "pause", "reason": "CRM moves <b>"}
        assert client.post("/processing", data={**form, "token": "x"}).status_code == 403
        assert client.post("/processing", data={**form, "reason": " "}).status_code == 400
        client.post("/processing", data=form).raise_for_status()
        waiting = post(services, subject="second")
        # A worker that is new heeds it as one that was there before.
        wait_until(lambda: connection.execute(BEATEN).fetchall(), services.log)
        services.kill_group(worker)
        services.start_worker()
        wait_until(lambda: len(connection.execute(BEATEN).fetchall()) == 2, services.log)
        for path in ("/", "/emails", "/quarantine", f"/emails/{waiting}"):
            banner = lxml.html.fromstring(client.get(path).text).xpath(
                "//form[@aria-label='Processing is paused']"
            )
            assert "by olga: CRM moves <b>" in " ".join(banner[0].text_content().split()), path
        told = client.get(API, headers=TOKEN).json()
        assert (told["is_paused"], told["by"], told["reason"]) == (True, "olga", "CRM moves <b>")
        again = client.post(f"{API}/pause", headers=TOKEN, json={"reason": "me too"})
        assert again.status_code == 409
        status = services.run("mailroom", "status")
        assert status.returncode == 1
        assert "by olga: CRM moves <b>" in status.stdout
        doctor = services.run("mailroom", "doctor")
        assert doctor.returncode == 1
        assert "FAIL processing" in doctor.stdout
        wait_until(lambda: paused_metric(client).endswith(" 1.0"))
        assert status_of(connection, waiting) == "received"
        assert services.run("mailroom", "resume").returncode == 0
        wait_until(lambda: status_of(connection, waiting) == "completed", services.log)
        assert services.run("mailroom", "resume").returncode == 1
        assert client.post(f"{API}/resume", headers=TOKEN).status_code == 409
        assert client.post(f"{API}/pause", headers=TOKEN, json={}).status_code == 400
        wait_until(lambda: "Processing is paused" not in client.get("/emails").text)
