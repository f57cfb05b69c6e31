"""Erasures by command and by API, through real processes."""

from collections.abc import Iterator
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import psycopg
import pytest
from support import Services, create_token, email, make_settings, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH
from app.jobs.broker import make_broker, prepare_broker
from app.jobs.messages import make_message

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
PATH = "/api/v1/erasures"
NOTHING = {
    "emails": 0,
    "files": 0,
    "entries": 0,
    "deliveries": 0,
    "refused": 0,
    "waiting_files": 0,
}


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def api(web: Services) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer token"}
    with httpx.Client(base_url=web.url, headers=headers) as client:
        yield client


def send(api: httpx.Client, payload: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = api.post(WEBHOOK_PATH, **signed(payload)).raise_for_status().json()
    return answer


def test_an_erasure_by_api_counts_first_and_keeps_a_record(
    api: httpx.Client, connection: Connection
) -> None:
    erika, kim = email(), email(ticket_id="7")
    first = send(api, erika)
    send(api, kim)
    assert httpx.post(f"{api.base_url}{WEBHOOK_PATH}", json=erika).status_code == 401
    asked: dict[str, Any] = {"sender": erika["from_email"].upper()}
    answer = api.post(PATH, json=asked).json()
    assert answer == {"found": {**NOTHING, "emails": 1, "refused": 1}, "record": None}
    done = api.post(PATH, json={**asked, "dry_run": False}).json()
    record = done["record"]
    assert record["erased"] == {**NOTHING, "emails": 1, "refused": 1}
    assert (record["kind"], record["asked_by"]) == ("sender", "MAILROOM_API_TOKEN")
    assert record["ended_at"] is not None
    assert send(api, erika) == {
        "status": "duplicate",
        "message": "The email was stored by an earlier delivery; nothing was added.",
        "email_id": first["email_id"],
    }
    # By the id of one, a record is kept as well.
    other = send(api, email())["email_id"]
    assert api.delete(f"/api/v1/jobs/{other}").status_code == 204
    listed = api.get(PATH).json()
    assert [one["kind"] for one in listed] == ["email", "sender"]
    assert listed[1] == record == api.get(f"{PATH}/{record['id']}").json()
    assert api.get(f"{PATH}/{uuid4()}").status_code == 404
    assert api.post(PATH, json={"ticket_id": "7", "dry_run": False}).status_code == 200
    assert connection.execute("SELECT id FROM incoming_emails").fetchall() == []


def test_the_command_tells_of_the_same_address_in_another_spelling(
    services: Services, connection: Connection
) -> None:
    alike = ["Erika <erika@b\u00fccher.example>", "erika@xn--bcher-kva.example"]
    others = [
        "perika@xn--bcher-kva.example",
        "erika@xn--bcher-kva.example.org-x",
        "kim@example.com",
        # More than are told.
        *(f"{n}erika@b\u00fccher.example" for n in range(300)),
    ]
    for sender in [
        *alike,
        *others,
        "ERIKA@bu\u0308cher.example",
        "a_b@example.com",
        "axb@example.com",
    ]:
        connection.execute("INSERT INTO incoming_emails (from_email) VALUES (%s)", [sender])
    address = "erika@bu\u0308cher.example"
    for more in (["--dry-run"], []):
        ended = services.run("mailroom", "erase", "--sender", address, *more)
        assert ended.returncode == 0, ended.stderr
        assert "1 emails" in ended.stdout
        assert [line.split("'")[1] for line in ended.stderr.splitlines()] == alike
    ended = services.run("mailroom", "erase", "--sender", alike[0], "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = services.run("mailroom", "erase", "--sender", "a_b@example.com", "--dry-run")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "sender"),
        ({"sender": "a@b.c", "ticket_id": "7"}, "sender"),
        ({"sender": " "}, "sender"),
        ({"ticket_id": "x" * 65}, "ticket_id"),
        ({"email_id": "7"}, "email_id"),
        ({"from_email": "a@b.c"}, "from_email"),
    ],
)
def test_what_is_not_clear_is_refused(api: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = api.post(PATH, json={**body, "dry_run": False})
    assert answer.status_code == 400
    assert field in answer.text
    assert api.get(PATH).json() == []


def test_erasing_needs_the_scope(web: Services, api: httpx.Client) -> None:
    reads = create_token(web, "reader")
    assert httpx.post(f"{web.url}{PATH}", headers=reads, json={"sender": "a"}).status_code == 403
    assert httpx.get(f"{web.url}{PATH}", headers=reads).status_code == 403


def test_a_command_that_was_killed_is_brought_to_its_end(
    web: Services, api: httpx.Client, connection: Connection
) -> None:
    payload = email()
    email_id = send(api, payload)["email_id"]
    send(api, email())
    nothing = web.run("mailroom", "erase", "--dry-run", "--sender", "nobody@example.com")
    assert nothing.returncode == 1
    unclear = web.run("mailroom", "erase", "--ticket", "1", "--id", str(uuid4()))
    assert unclear.returncode == 1
    assert "say one of" in unclear.stderr
    with connection.transaction():
        connection.execute("SELECT FROM incoming_emails FOR UPDATE")
        killed = web.start("mailroom", "erase", "--sender", payload["from_email"])
        with psycopg.connect(web.environment["DATABASE_URL"], autocommit=True) as other:
            # It has set its tombstones, and waits for the row.
            wait_until(lambda: other.execute("SELECT key FROM tombstones").fetchone(), web.log)
            web.kill_group(killed)
    assert send(api, payload)["status"] == "duplicate"
    assert connection.execute("SELECT count(*) AS n FROM incoming_emails").fetchone() == {"n": 2}
    connection.execute("UPDATE erasures SET worked_at = now() - interval '1 hour'")
    web.start_worker()
    wait_until(
        lambda: connection.execute("SELECT id FROM erasures WHERE ended_at IS NOT NULL").fetchone(),
        web.log,
    )
    assert connection.execute("SELECT count(*) AS n FROM incoming_emails").fetchone() == {"n": 1}
    listed = web.run("mailroom", "erasures", "--sender", "-", stdin=payload["from_email"].encode())
    assert "1 emails" in listed.stdout
    assert "an operator at the command line" in listed.stdout
    assert payload["from_email"] not in listed.stdout + web.log()
    shown = web.run("mailroom", "show", email_id)
    assert "was erased for good, as an operator at the command line asked on" in shown.stderr
    assert web.run("mailroom", "erasures", "--ticket", "1", "--json").stdout == ""


@pytest.mark.long
def test_the_message_of_an_erased_email_does_nothing(
    services: Services, connection: Connection, broker_url: str
) -> None:
    """Over each broker. It holds the id alone, as what the broker keeps of it shows."""
    services.environment["BROKER_URL"] = broker_url
    settings = make_settings(broker_url=broker_url, queue=services.queue)
    broker = make_broker(settings, services.environment["DATABASE_URL"])
    prepare_broker(broker)
    address = email()["from_email"]
    insert = "INSERT INTO incoming_emails (from_email) VALUES (%s) RETURNING id"
    erased, other = (
        connection.execute(insert, [sender]).fetchone() for sender in (address, "x@example.com")
    )
    assert erased
    assert other
    try:
        for row in (erased, other):
            message = make_message(services.queue, [row["id"]])
            assert address.encode() not in message.encode()
            broker.enqueue(message)
    finally:
        broker.close()
    done = services.run("mailroom", "erase", "--sender", address)
    assert done.returncode == 0, done.stderr
    services.start_worker()
    wait_until(
        lambda: connection.execute(
            "SELECT id FROM incoming_emails WHERE processing_status = 'completed'"
        ).fetchone(),
        services.log,
    )
    assert connection.execute("SELECT id FROM incoming_emails").fetchall() == [other]
    assert "Traceback" not in services.log()
    assert address not in services.log()
