"""Webhooks from other addresses than Zendesk's, at the real web process."""

from typing import Any

import httpx
import psycopg
from support import Services, create_operators, email, enter, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]
ACCOUNT = "https://example.zendesk.com"


def post(services: Services, subject: str, sender: str | None) -> int:
    request = signed(email(subject=subject))
    if sender is not None:
        # This machine is a proxy that is believed.
        request["headers"] = {**request["headers"], "X-Forwarded-For": sender}
    return httpx.post(services.url + WEBHOOK_PATH, **request, timeout=60).status_code


def test_what_comes_from_elsewhere_is_refused_kept_and_admitted_by_its_signature(
    services: Services, connection: Connection
) -> None:
    connection.execute(
        "INSERT INTO zendesk_ranges (account, ranges, outside, outside_at)"
        """ VALUES (%s, '["216.198.0.0/18"]', 7, now())""",
        [ACCOUNT],
    )
    services.environment |= {
        "MAILROOM_ZENDESK_SUBDOMAIN": "example",
        "MAILROOM_ZENDESK_IPS": "enforce",
    }
    services.start_web()
    create_operators(services)
    # The list is read soon after the start.
    wait_until(lambda: post(services, "from elsewhere", "8.8.8.8") == 401, services.log)
    assert post(services, "from Zendesk", "216.198.1.1") == 200
    assert post(services, "hidden", None) == 200
    kept = connection.execute(
        "SELECT detail, is_signed, remote_address FROM quarantined_webhooks"
    ).fetchall()
    assert "none of Zendesk's published ones" in kept[0]["detail"]
    assert (kept[0]["is_signed"], kept[0]["remote_address"]) == (True, "8.8.8.8")
    with httpx.Client(base_url=services.url, timeout=60) as client:
        enter(client, services)
        page = client.get("/").text
    assert "1 ranges" in page
    assert "7 webhooks came from elsewhere" in page
    token = {"Authorization": "Bearer token"}
    metrics = httpx.get(f"{services.url}/metrics", headers=token, timeout=60).text
    assert 'mailroom_webhook_senders_total{origin="inside"} 1.0' in metrics
    assert services.run("mailroom", "quarantine", "retry", "--all").returncode == 0
    subjects = {row["subject"] for row in connection.execute("SELECT subject FROM incoming_emails")}
    assert subjects == {"from elsewhere", "from Zendesk", "hidden"}
