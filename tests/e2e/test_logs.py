"""The logs of a whole run: every line is JSON and has ids, none has what an email holds."""

import json
import os
from typing import Any

import httpx
import psycopg
import pytest
from support import PROJECT, SECRET, Services, email, free_port, is_success, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

# Of letters that stand in no number and in no id.
ADDRESS = "erika.mustermann.xyzzy@example.com"
NAME = "Erika Musterfrau-xyzzy"
SUBJECT = "Betreff xyzzy geheim"
BODY = "Mein Passwort ist hunterxyzzy"
TOKEN = "token-of-the-production-api-xyzzy"
KEPT_OUT = (ADDRESS, NAME, SUBJECT, BODY, TOKEN, SECRET, "hunterxyzzy", "xyzzy")

HANDLER = """
import logging
import structlog
async def handle(email):
    logging.getLogger("mine").info("working")
    structlog.get_logger("mine").info("still_working")
    if email.zendesk_ticket_id == "2":
        raise ValueError(f"cannot read {email.from_email}: {email.raw_body_text}")
    if email.zendesk_ticket_id == "3":
        1 / 0
    email.cleaned_body = email.raw_body_text
"""


def lines(services: Services) -> list[dict[str, Any]]:
    return [json.loads(line) for line in services.log().splitlines()]


@pytest.fixture
def production(services: Services) -> Services:
    services.write_handler(HANDLER)
    services.environment |= {
        "MAILROOM_ENV": "production",
        "MAILROOM_LOG_LEVEL": "debug",
        "MAILROOM_API_TOKEN": TOKEN,
        "MAILROOM_MAX_RETRIES": "1",
    }
    services.start_web()
    services.start("mailroom", "worker")
    return services


def test_one_id_leads_through_the_logs_and_nothing_of_an_email_is_in_them(
    production: Services,
) -> None:
    content = {"from_email": ADDRESS, "from_name": NAME, "subject": SUBJECT, "body_text": BODY}
    url = f"{production.url}{WEBHOOK_PATH}"
    api = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
    deliveries = [signed(email(ticket_id=ticket, **content)) for ticket in ("1", "2", "3")]
    answers = [httpx.post(url, **delivery) for delivery in deliveries]
    ids = [answer.json()["email_id"] for answer in answers]
    assert [answer.headers["x-request-id"] for answer in answers] == ids
    duplicate = httpx.post(url, **deliveries[0])
    assert duplicate.json()["email_id"] == ids[0] != duplicate.headers["x-request-id"]
    refused = [
        httpx.post(url, **signed(email(**content), secret="wrong-xyzzy")),
        httpx.post(url, **signed(f'{{"from_email": "{ADDRESS}"'.encode())),
        httpx.post(url, **signed({"from_email": ADDRESS, "ticket_id": {"x": BODY}})),
    ]
    assert [answer.status_code for answer in refused] == [401, 200, 400]
    jobs = f"{production.url}/api/v1/jobs"

    def are_ended() -> bool:
        counts = httpx.get(f"{jobs}/counts", **api).json()
        ended: int = counts["completed"]["emails"] + counts["failed"]["emails"]
        # The one that nobody can read is an email that failed.
        return ended == len(ids) + 1

    wait_until(are_ended, production.log)
    assert httpx.get(f"{jobs}/{ids[1]}", **api).status_code == 200
    assert httpx.get(jobs, headers={"Authorization": "Bearer wrong-xyzzy"}).status_code == 401
    shown = production.run("mailroom", "quarantine", "show", refused[0].headers["x-request-id"])
    assert shown.returncode == 0, shown.stderr
    assert BODY in shown.stdout

    log = production.log()
    assert not [secret for secret in KEPT_OUT if secret in log]
    for email_id, last in zip(ids, ("completed", "email_failed", "email_failed"), strict=True):
        said = [line["event"] for line in lines(production) if line.get("email_id") == email_id]
        assert said[0] == "webhook_stored"
        assert {"sent_to_broker", "working", "still_working"} <= set(said)
        assert last in said
        by_request = [line for line in lines(production) if line.get("request_id") == email_id]
        assert by_request[0]["email_id"] == email_id


# PostgreSQL's messages quote values, as this one does.
RAISE_WITH_ADDRESS = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'cannot take %', OLD.from_email; END $$;
CREATE TRIGGER refuse_erasing BEFORE DELETE ON incoming_emails
    FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse_claims BEFORE UPDATE ON incoming_emails FOR EACH ROW
    WHEN (NEW.processing_status = 'processing') EXECUTE FUNCTION refuse();
"""


def test_errors_of_ours_are_logged_without_their_messages(
    production: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    connection.execute(RAISE_WITH_ADDRESS)
    answer = httpx.post(f"{production.url}{WEBHOOK_PATH}", **signed(email(from_email=ADDRESS)))
    email_id = answer.json()["email_id"]
    wait_until(lambda: "RaiseError" in production.log(), production.log)
    erased = httpx.delete(
        f"{production.url}/api/v1/jobs/{email_id}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert erased.status_code == 500
    log = production.log()
    assert not [secret for secret in KEPT_OUT if secret in log]
    by_event = {line["event"].split(" ")[0]: line for line in lines(production)}
    for event, function in (("unhandled_error", "erase_email"), ("Failed", "claim")):
        (told,) = by_event[event]["exception"]
        assert told["exc_type"] == "RaiseError"
        assert function in [frame["name"] for frame in told["frames"]]


def test_filters_are_not_logged_by_either_server_command(production: Services) -> None:
    port = str(free_port())
    production.start(
        "litestar", "--app", "app.main:create_app", "run", "--port", port,
        PYTHONPATH=f"{PROJECT}{os.pathsep}{production.environment['PYTHONPATH']}",
    )  # fmt: skip
    urls = [production.url, f"http://127.0.0.1:{port}"]
    wait_until(lambda: is_success(f"{urls[1]}/health/live"), production.log)
    for url in urls:
        found = httpx.get(
            f"{url}/api/v1/jobs",
            params={"from_email": ADDRESS, "subject": SUBJECT},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert found.status_code == 200
    production.end()
    assert not [secret for secret in KEPT_OUT if secret in production.log()]
    assert "/api/v1/jobs" not in production.log()
