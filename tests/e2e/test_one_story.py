"""`mailroom show`, the API and the desk tell one and the same story; the overview tells of
deliveries with their mend."""

import html
import json
from typing import Any

import httpx
import psycopg
from support import Services, create_operators, enter

SECRETS = "whsec_" + "bWFpbHJvb20tdGVzdHMtYXJlLXNpZ25lZC1ieS10aGlz"


def test_command_api_and_desk_tell_one_story_and_the_overview_the_mend(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    services.environment |= {
        "MAILROOM_SYNC_URL": "http://127.0.0.1:1/",
        "MAILROOM_SYNC_SECRETS": SECRETS,
    }
    row = connection.execute(
        "INSERT INTO incoming_emails (processing_status, completed_at, sync_status, sync_error)"
        " VALUES ('completed', now(), 'failed', 'it answered <503>') RETURNING id"
    ).fetchone()
    assert row is not None
    email_id = str(row["id"])
    connection.execute(
        "INSERT INTO email_events (email, kind, attempt, worker, text) VALUES"
        " (%s, 'delivery', 1, 'one', 'delivery failed: it answered <503>')",
        [email_id],
    )
    create_operators(services)
    services.start_web()
    shown = json.loads(services.run("mailroom", "show", email_id, "--json").stdout)
    token = {"Authorization": "Bearer token"}
    told = httpx.get(f"{services.url}/api/v1/jobs/{email_id}", headers=token, timeout=60).json()
    events = [event["what"] for event in told["events"]]
    assert [event["what"] for event in shown["events"]] == events
    assert "delivery, try 1: delivery failed: it answered <503> (by one)" in events

    with httpx.Client(base_url=services.url, timeout=60) as client:
        enter(client, services)
        page = html.unescape(client.get(f"/emails/{email_id}").text)
        assert [event for event in events if event not in page] == []
        assert told["next_step"] in page
        assert f"mailroom reconcile --id {email_id} --apply" in told["next_step"]

        connection.execute(
            "INSERT INTO chores (name, failures, last_error) VALUES ('prune', 3, '<away>')"
        )
        overview = client.get("/").text
        assert "<strong>1</strong> given up" in overview
        assert "<code>mailroom reconcile</code>" in overview
        assert "failed 3 times in a row: &lt;away&gt;." in overview
