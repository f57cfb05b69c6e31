"""Event subscriptions, from the webhook to the processed email, through the real processes."""

from typing import Any

import httpx
import psycopg
from support import Services, create_token, email, events, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]


def post(services: Services, payload: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(services.url + WEBHOOK_PATH, **signed(payload), timeout=60)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def test_an_event_is_processed_explained_and_erased(
    services: Services, connection: Connection
) -> None:
    services.start_web()
    came, file = events()
    assert post(services, file)["status"] == "acknowledged"
    accepted = post(services, came)
    assert accepted["status"] == "accepted"
    assert post(services, came) == {
        **accepted,
        "status": "duplicate",
        "message": ("The email was stored by an earlier delivery; nothing was added."),
    }
    staff = events()[0]
    staff["event"]["comment"]["author"]["is_staff"] = True
    ignored = post(services, staff)
    assert (ignored["status"], ignored["email_id"]) == ("acknowledged", None)
    assert post(services, email())["status"] == "accepted"
    services.start_worker()

    def are_completed() -> bool:
        states = connection.execute("SELECT processing_status FROM incoming_emails").fetchall()
        return [state["processing_status"] for state in states] == ["completed"] * 2

    wait_until(are_completed, services.log)
    email_id = accepted["email_id"]
    story = services.run("mailroom", "show", email_id).stdout
    assert "it came as an event of Zendesk's: ticket.comment_added" in story
    assert "MAILROOM_ZENDESK_TOKEN" in story
    token = create_token(services, "reader")
    url = f"{services.url}/api/v1/jobs/{email_id}"
    job = httpx.get(url, headers=token, timeout=60).json()
    assert job["body_text"] == "Wo bleibt mein Päckchen?"
    assert [item["url"] for item in job["attachments"]] == [
        file["event"]["comment"]["attachment"]["content_url"]
    ]
    assert job["cleaned_body"] == "Wo bleibt mein Päckchen?"
    gone = {**came, "id": "gone", "type": "zen:event-type:ticket.permanently_deleted", "event": {}}
    assert post(services, gone)["status"] == "acknowledged"
    job = httpx.get(url, headers=token, timeout=60).json()
    for name in ("body_text", "body_html", "cleaned_body", "extracted_data", "attachments"):
        assert job[name] is None
    assert (
        "because Zendesk erased its ticket for good"
        in services.run("mailroom", "show", email_id).stdout
    )
    post(services, {**came, "id": "a replay"})
    rows = connection.execute("SELECT * FROM incoming_emails").fetchall()
    assert len(rows) == 2
    assert "Päckchen?" not in str([row for row in rows if str(row["id"]) == email_id])
