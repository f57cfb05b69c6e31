"""`mailroom zendesk setup` beside a real web process: what Zendesk sends then is an email."""

from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
from support import SECRET, Services
from zendesk.account import Account
from zendesk.rules_api import TRIGGERS
from zendesk.server import api_in_thread
from zendesk.setup_api import RECEIVER

from app.intake.openapi import WEBHOOK_PATH
from app.intake.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from app.zendesk.lint.hostile_tickets import TICKETS
from app.zendesk.lint.rendering import render_each


def deliver(endpoint: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    answer = httpx.post(endpoint, content=body, headers=headers, timeout=60)
    return answer.status_code, answer.text


def test_what_setup_makes_delivers_whatever_customers_write(
    services: Services, connection: psycopg.Connection[dict[str, Any]]
) -> None:
    web = services.start_web()
    account = Account(parts={RECEIVER: deliver})
    secrets = services.folder / "secrets"
    secrets.write_text(f"first:{SECRET}\n")
    with api_in_thread(account) as api:
        del services.environment["MAILROOM_WEBHOOK_SECRETS"]
        services.environment |= {
            **api.environment,
            "MAILROOM_WEBHOOK_SECRETS_FILE": str(secrets),
            "MAILROOM_PUBLIC_URL": services.url,
            "MAILROOM_OUTBOUND_OPEN_LOOPBACK": "true",
        }
        made = services.run("mailroom", "zendesk", "setup")
        # The web process that runs does not know the new secret.
        assert made.returncode == 1, made.stdout + made.stderr
        assert "restart `mailroom web`" in made.stdout
        web.terminate()
        web.wait(60)
        services.start_web()
        checked = services.run("mailroom", "zendesk", "check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        # No worker has looked behind the webhook yet.
        asked = services.run("mailroom", "doctor", "--before-deploy")
        assert asked.returncode == 1
        assert "FAIL outage      the web process may be down for about 60 seconds" in asked.stdout
    [webhook] = account.webhooks.values()
    assert webhook.endpoint == services.url + WEBHOOK_PATH
    [trigger] = account.parts[TRIGGERS]
    template = trigger["actions"][0]["value"][1]
    assert connection.execute("SELECT id FROM incoming_emails").fetchall() == []
    for _, rendered in render_each(template):
        timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = rendered.encode()
        headers = {
            SIGNATURE_HEADER: sign(webhook.secret, timestamp, body),
            TIMESTAMP_HEADER: timestamp,
            "content-type": "application/json",
        }
        assert deliver(webhook.endpoint, body, headers)[0] == 200
    rows = connection.execute(
        "SELECT subject, raw_body_text, from_name, attachment_urls FROM incoming_emails"
        " ORDER BY created_at, id"
    ).fetchall()
    assert [row["subject"] for row in rows] == [ticket.title for ticket in TICKETS]
    assert [row["raw_body_text"] or "" for row in rows] == [ticket.text for ticket in TICKETS]
    assert [len(row["attachment_urls"] or ()) for row in rows] == [
        len(ticket.files) for ticket in TICKETS
    ]
