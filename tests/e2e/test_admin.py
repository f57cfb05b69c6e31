"""Piccolo Admin at `/admin`, as a browser talks to it."""

from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from support import PROJECT, Services, email, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

PASSWORD = "correct horse battery staple"
EMAILS = "/admin/api/tables/incoming_emails/"


@pytest.fixture
def web(services: Services) -> Iterator[Services]:
    made = services.run(
        *("piccolo", "user", "create", "--username=olga", f"--password={PASSWORD}"),
        *("--email=olga@example.com", "--is_admin=true", "--is_superuser=false"),
        "--is_active=true",
        PYTHONPATH=str(PROJECT),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    services.start_web()
    return services


@pytest.fixture
def operator(web: Services) -> Iterator[httpx.Client]:
    """An operator who has signed in."""
    with httpx.Client(base_url=web.url) as client:
        client.get("/admin/").raise_for_status()
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        login = {"username": "olga", "password": PASSWORD}
        client.post("/admin/public/login/", json=login).raise_for_status()
        yield client


def stored(web: Services, **fields: Any) -> str:
    answer = httpx.post(web.url + WEBHOOK_PATH, **signed(email(**fields)))
    email_id: str = answer.json()["email_id"]
    return email_id


def test_the_page_and_its_files_load_with_and_without_the_slash(web: Services) -> None:
    bare = httpx.get(f"{web.url}/admin")
    assert bare.status_code == 308
    assert bare.headers["location"] == "/admin/"
    page = httpx.get(f"{web.url}/admin/")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]


def test_nobody_sees_an_email_without_signing_in(web: Services) -> None:
    stored(web)
    assert httpx.get(web.url + EMAILS).status_code in (401, 403)


def test_an_operator_finds_an_email_by_its_state_and_subject(
    web: Services, operator: httpx.Client
) -> None:
    wanted = stored(web, subject="Rechnung 4711 fehlt")
    stored(web, subject="etwas anderes")
    rows = operator.get(EMAILS, params={"processing_status": "received", "subject": "4711"})
    assert [row["id"] for row in rows.json()["rows"]] == [wanted]
    assert operator.get(EMAILS, params={"processing_status": "failed"}).json()["rows"] == []


def test_emails_cannot_be_made_changed_or_deleted_by_hand(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    email_id = stored(web)
    before = connection.execute("SELECT * FROM incoming_emails").fetchall()
    row = f"{EMAILS}{email_id}/"
    content = {"from_email": "x@example.com", "processing_status": "completed"}
    made = operator.post(EMAILS, json=content)
    assert made.status_code == 403, made.text
    assert operator.patch(row, json=content).status_code == 403
    assert operator.put(row, json=content).status_code in (403, 405)
    assert operator.delete(row).status_code == 403
    assert operator.delete(EMAILS).status_code in (403, 405)
    assert connection.execute("SELECT * FROM incoming_emails").fetchall() == before


def test_an_operator_retries_a_failed_email_and_it_says_who_did(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    email_id = stored(web)
    form = "/admin/api/forms/retry-an-email/"
    refused = operator.post(form, json={"email_id": email_id, "force": False})
    assert refused.status_code == 422
    assert "not failed" in refused.text
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    answer = operator.post(form, json={"email_id": email_id, "force": False})
    assert answer.status_code == 200, answer.text
    row = connection.execute("SELECT * FROM incoming_emails").fetchone()
    assert row is not None
    assert row["processing_status"] == "queued"
    assert "olga" in str(row["attempt_errors"])
    web.start_worker()
    wait_until(
        lambda: operator.get(f"{EMAILS}{email_id}/").json()["processing_status"] == "completed",
        web.log,
    )
