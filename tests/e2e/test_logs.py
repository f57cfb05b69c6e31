"""The logs of a whole run: every line is JSON and has ids, none has what an email holds."""

import json
from typing import Any

import httpx
import pytest
from support import SECRET, Services, email, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

ADDRESS = "erika.mustermann.4711@example.com"
NAME = "Erika Musterfrau-4711"
SUBJECT = "Betreff 4711 geheim"
BODY = "Mein Passwort ist hunter4711"
TOKEN = "token-of-the-api-4711"
KEPT_OUT = (ADDRESS, NAME, SUBJECT, BODY, TOKEN, SECRET, "hunter4711", "4711")

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
        httpx.post(url, **signed(email(**content), secret="wrong-4711")),
        httpx.post(url, **signed(f'{{"from_email": "{ADDRESS}"'.encode())),
        httpx.post(url, **signed({"from_email": ADDRESS, "ticket_id": {"x": BODY}})),
    ]
    assert [answer.status_code for answer in refused] == [401, 400, 400]
    jobs = f"{production.url}/api/v1/jobs"

    def are_ended() -> bool:
        counts = httpx.get(f"{jobs}/counts", **api).json()
        ended: int = counts["completed"]["emails"] + counts["failed"]["emails"]
        return ended == len(ids)

    wait_until(are_ended, production.log)
    assert httpx.get(f"{jobs}/{ids[1]}", **api).status_code == 200
    assert httpx.get(jobs, headers={"Authorization": "Bearer wrong-4711"}).status_code == 401
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
