"""What programs read of a command: its answer alone stands on standard output."""

import json

import psycopg
from support import Services

TOKEN = "a-token-that-stands-in-no-log"
NO_ZENDESK = {
    "MAILROOM_ZENDESK_URL": "http://127.0.0.1:1",
    "MAILROOM_ZENDESK_EMAIL": "olga@example.com",
    "MAILROOM_ZENDESK_TOKEN": TOKEN,
}


def test_a_look_that_fails_is_logged_without_the_token(services: Services) -> None:
    ended = services.run("mailroom", "gaps", **NO_ZENDESK)
    assert "chore_failed" in ended.stderr
    assert "chore_failed" not in ended.stdout
    said = ended.stdout + ended.stderr
    assert TOKEN not in said
    assert "authorization" not in said.lower()


def test_an_erasure_prints_its_record_alone(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    connection.execute("INSERT INTO incoming_emails (from_email) VALUES ('erika@example.com')")
    erased = services.run("mailroom", "erase", "--json", "--sender", "erika@example.com")
    assert json.loads(erased.stdout)["erased"]["emails"] == 1
    exported = services.run("mailroom", "erasures", "export")
    assert exported.returncode == 0, exported.stderr
    assert [json.loads(line) for line in exported.stdout.splitlines()]
