"""Text of strangers in the output of commands."""

import json
import re
from typing import Any

import psycopg
import pytest
from support import Services

ATTACK = "\x1b[2J\x1b]52;c;cm0gLXJm\x07\x9b1A\u202eexe\nFAIL"
ESCAPED = r"\u001b[2J\u001b]52;c;cm0gLXJm\u0007\u009b1A\u202eexe\nFAIL"
ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def email_id(connection: psycopg.Connection[dict[str, Any]]) -> str:
    entry = {"at": "2026-11-23T14:05:09+00:00", "attempt": 1, "error": ATTACK, "worker": ATTACK}
    (row,) = connection.execute(
        "INSERT INTO incoming_emails (zendesk_ticket_id, from_email, subject, processing_status,"
        " processing_error, completed_at, attempt_errors)"
        " VALUES (%s, %s, %s, 'failed', %s, now(), %s) RETURNING id",
        [ATTACK, ATTACK, ATTACK, ATTACK, json.dumps([entry])],
    ).fetchall()
    connection.execute(
        "INSERT INTO quarantined_webhooks (id, reason, detail, remote_address, headers, body)"
        " VALUES (%s, 'unreadable', %s, %s, %s, %s)",
        [row["id"], ATTACK, ATTACK, json.dumps({"user-agent": ATTACK}), ATTACK.encode()],
    )
    connection.execute(
        "INSERT INTO api_tokens (name, token_hash, scope) VALUES (%s, 'x', 'read')", [ATTACK]
    )
    return str(row["id"])


@pytest.mark.parametrize(
    "command",
    [
        ["show", "{id}"],
        ["show", "--json", "{id}"],
        ["quarantine", "list"],
        ["quarantine", "list", "--json"],
        ["quarantine", "show", "{id}"],
        ["token", "list"],
    ],
    ids=" ".join,
)
def test_it_is_shown_and_not_obeyed(services: Services, email_id: str, command: list[str]) -> None:
    ended = services.run("mailroom", *(word.format(id=email_id) for word in command))
    assert ended.returncode == 0, ended.stderr
    assert not ORDERS.search(ended.stdout + ended.stderr)
    # A body keeps its own line breaks.
    shown = ended.stdout.replace("exe\nFAIL", r"exe\nFAIL")
    assert (json.dumps(ATTACK)[1:-1] if "--json" in command else ESCAPED) in shown
