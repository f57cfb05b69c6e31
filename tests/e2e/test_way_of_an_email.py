"""A signed webhook becomes a completed row, through the real processes and each broker."""

import httpx
import psycopg
from support import Services, email, signed, wait_until

WEBHOOK = "/api/v1/zendesk/webhook"


def test_a_signed_webhook_becomes_a_completed_row(
    services: Services, connection: "psycopg.Connection[dict[str, object]]", broker_url: str
) -> None:
    services.environment["BROKER_URL"] = broker_url
    services.start_web()
    services.start_worker()
    answer = httpx.post(services.url + WEBHOOK, **signed(email()))
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "accepted"
    query = "SELECT * FROM incoming_emails WHERE id = %s AND processing_status = 'completed'"
    wait_until(
        lambda: connection.execute(query, [answer.json()["email_id"]]).fetchone(), services.log
    )
    row = connection.execute(query, [answer.json()["email_id"]]).fetchone()
    assert row is not None
    assert row["cleaned_body"] == "Guten Tag,\nwo ist mein Päckchen?"
    assert row["extracted_data"] == {
        "text_source": "html",
        "characters": 32,
        "attachments": 0,
        "quoted": "",
        "signature": "",
        "forwarded": "",
        "language": "de",
        "kind": "message",
        "confidence": 1.0,
    }
    assert row["claims"] == 1
    assert row["retry_count"] == 0
    assert row["completed_at"] is not None
    assert row["lease_expires_at"] is None
