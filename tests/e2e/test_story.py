"""`mailroom show` and `mailroom stuck`: any email can be explained."""

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
from support import Services, wait_until

Connection = psycopg.Connection[dict[str, Any]]


def insert(connection: Connection, **columns: Any) -> UUID:
    """An email that is stored, with these columns."""
    columns = {"zendesk_ticket_id": "35436", "from_email": "erika@example.com", **columns}
    row = connection.execute(
        psycopg.sql.SQL("INSERT INTO incoming_emails ({}) VALUES ({}) RETURNING id").format(
            psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns)),
            psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(columns)),
        ),
        list(columns.values()),
    ).fetchone()
    assert row is not None
    email_id: UUID = row["id"]
    return email_id


def test_show_tells_each_attempt_its_error_its_worker_and_the_end(
    services: Services, connection: Connection
) -> None:
    services.write_handler(
        "from app.handlers.seam import PermanentFailure, Retry\n"
        "async def handle(email):\n"
        "    if email.retry_count == 0:\n"
        "        raise Retry('the CRM is busy', after=0.1)\n"
        "    if email.retry_count == 1:\n"
        "        raise ValueError('kaputt')\n"
        "    raise PermanentFailure('the CRM knows no such customer')\n"
    )
    email_id = insert(connection)
    worker = services.start_worker()
    failed = "SELECT 1 FROM incoming_emails WHERE processing_status = 'failed'"
    wait_until(lambda: connection.execute(failed).fetchone(), services.log)
    told = services.run("mailroom", "show", str(email_id))
    assert told.returncode == 0, told.stderr
    lines = [line.split("  ")[-1] for line in told.stdout.splitlines()]
    assert lines[0] == f"Email {email_id}, ticket 35436: failed"
    assert lines[1].startswith("received: ")
    attempts = [line for line in lines if line.startswith("attempt ")]
    assert attempts[0].startswith("attempt 1: the CRM is busy (by ")
    assert attempts[1].startswith("attempt 2: ValueError: kaputt (by ")
    assert attempts[2].startswith("attempt 3: the CRM knows no such customer (by ")
    assert lines[-2] == "failed: the CRM knows no such customer"
    assert lines[-1] == "Next: nothing, until an operator retries it"
    assert worker.poll() is None


def test_show_says_when_the_next_attempt_comes(services: Services, connection: Connection) -> None:
    email_id = insert(
        connection,
        processing_status="queued",
        queued_at="2026-11-23T12:00:00Z",
        next_attempt_at="2126-11-23T12:00:00Z",
        retry_count=2,
    )
    told = json.loads(services.run("mailroom", "show", str(email_id), "--json").stdout)
    assert told["status"] == "queued"
    assert told["next_step"] == "retry 2 of 5 begins"
    assert told["next_at"] == "2126-11-23 12:00:00+00:00"


def test_show_names_the_worker_that_holds_an_email(
    services: Services, connection: Connection
) -> None:
    services.write_handler(
        "import asyncio\nasync def handle(email):\n    await asyncio.sleep(600)\n"
    )
    email_id = insert(connection)
    services.start_worker()
    claimed = "SELECT claimed_by FROM incoming_emails WHERE processing_status = 'processing'"
    wait_until(lambda: connection.execute(claimed).fetchone(), services.log)
    row = connection.execute(claimed).fetchone()
    assert row is not None
    told = services.run("mailroom", "show", str(email_id))
    assert f"claimed by {row['claimed_by']}, claim 1" in told.stdout


def test_show_of_no_such_email_is_one_sentence(services: Services) -> None:
    told = services.run("mailroom", "show", str(uuid4()))
    assert told.returncode == 1
    assert told.stderr.startswith("mailroom: there is no email ")


def test_stuck_is_empty_when_all_is_well(services: Services, connection: Connection) -> None:
    insert(connection)
    insert(connection, processing_status="queued", queued_at="now")
    insert(connection, processing_status="completed", created_at="2020-01-01T00:00:00Z")
    insert(connection, processing_status="queued", next_attempt_at="2126-01-01T00:00:00Z")
    ended = services.run("mailroom", "stuck")
    assert ended.returncode == 0
    assert ended.stdout == ""


def test_stuck_lists_what_is_too_old_in_each_state(
    services: Services, connection: Connection
) -> None:
    old = "2026-01-01T00:00:00Z"
    stuck = [
        insert(connection, created_at=old),
        insert(connection, processing_status="queued", created_at=old),
        insert(connection, processing_status="processing", lease_expires_at=old),
    ]
    ended = services.run("mailroom", "stuck", "--json")
    assert ended.returncode == 1
    listed = json.loads(ended.stdout)
    assert {entry["id"] for entry in listed} == {str(email_id) for email_id in stuck}
    assert services.run("mailroom", "stuck").returncode == 1
