"""Piccolo Admin at `/admin`, as a browser talks to it."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from support import (
    PASSWORD,
    PRODUCTION,
    Services,
    create_operators,
    email,
    sign_in,
    signed,
    wait_until,
)

from app.intake.openapi import WEBHOOK_PATH

EMAILS = "/admin/api/tables/incoming_emails/"


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def web(web: Services) -> Services:
    create_operators(web)
    return web


@pytest.fixture
def operator(web: Services) -> Iterator[httpx.Client]:
    """An operator who has signed in."""
    with httpx.Client(base_url=web.url) as client:
        sign_in(client, "olga").raise_for_status()
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
    form = "/admin/api/forms/retry-by-id/"
    refused = operator.post(form, json={"email_ids": email_id, "force": False})
    assert refused.status_code == 422
    assert "Not failed" in refused.text
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    answer = operator.post(form, json={"email_ids": email_id, "force": False})
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


def test_an_operator_counts_failed_emails_and_retries_those_with_an_error(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    wanted, other = stored(web), stored(web)
    connection.execute(
        "UPDATE incoming_emails SET processing_status = 'failed', completed_at = now(),"
        " processing_error = CASE id WHEN %s THEN 'the CRM is away' ELSE 'no text' END",
        [wanted],
    )
    form = "/admin/api/forms/retry-failed-emails/"
    counted = operator.post(form, json={"error": "CRM", "only_count": True})
    assert "1 failed emails would be retried" in counted.text
    assert states(connection) == {wanted: "failed", other: "failed"}
    retried = operator.post(form, json={"error": "CRM", "only_count": False})
    assert "1 emails are queued again" in retried.text
    assert states(connection) == {wanted: "queued", other: "failed"}


def test_an_operator_settles_a_failed_email_with_a_reason(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    email_id = stored(web)
    form = "/admin/api/forms/settle-by-id/"
    content = {"email_ids": email_id, "reason": "answered by phone"}
    assert operator.post(form, json=content).status_code == 422
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    assert operator.post(form, json={**content, "reason": ""}).status_code == 422
    assert operator.post(form, json=content).status_code == 200
    assert states(connection) == {email_id: "completed"}
    told = web.run("mailroom", "show", email_id).stdout
    assert "completed by olga: answered by phone" in " ".join(told.split())


def test_an_operator_retries_and_settles_a_list_of_emails(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    retry, settle = "/admin/api/forms/retry-by-id/", "/admin/api/forms/settle-by-id/"
    one, two, three, done = (stored(web) for _ in range(4))
    connection.execute(
        "UPDATE incoming_emails SET completed_at = now(), processing_status ="
        " CASE id WHEN %s THEN 'completed' ELSE 'failed' END",
        [done],
    )
    answer = operator.post(retry, json={"email_ids": f" {one},{done}\r\n{one}\t{two} ,"})
    assert answer.json()["custom_form_success"] == (
        f"2 emails are queued again. Not failed, so left alone: {done}."
    )
    assert states(connection) == {one: "queued", two: "queued", three: "failed", done: "completed"}
    content = {"email_ids": f"{three} {done}", "reason": "answered by phone"}
    answer = operator.post(settle, json=content)
    assert answer.json()["custom_form_success"] == (
        f"1 email is completed. Not failed, so left alone: {done}."
    )
    answer = operator.post(retry, json={"email_ids": f"{three}{done}", "force": True})
    assert answer.json()["custom_form_success"] == "2 emails are queued again."
    assert set(states(connection).values()) == {"queued"}


def test_the_log_says_what_an_operator_did_without_a_name(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    one, two = sorted((stored(web), stored(web)))
    for form, content in (
        ("retry-by-id", {"email_ids": f"{one} {two}"}),
        ("settle-by-id", {"email_ids": one, "reason": "by phone", "discard": True}),
        ("retry-failed-emails", {"only_count": False}),
    ):
        connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
        operator.post(f"/admin/api/forms/{form}/", json=content).raise_for_status()
    row = connection.execute("SELECT id FROM piccolo_user WHERE username = 'olga'").fetchone()
    assert row is not None
    by = f"by=user:{row['id']}"
    told = re.findall(r"(\w+) +\[app\.desk\.admin_forms\] (.*) request_id=", web.log())
    assert told == [
        ("retried", f"{by} email_id={one}"),
        ("retried", f"{by} email_id={two}"),
        ("settled", f"{by} discarded=True email_id={one}"),
        ("retried_in_bulk", f"{by} emails=2"),
    ]
    assert "olga" not in web.log()


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ("", "No id is given"),
        (" ,\n", "No id is given"),
        (f"{uuid4()} x1 x2", "This is no id of an email: x1"),
        (" ".join(str(uuid4()) for _ in range(201)), "These are 201 ids: 200 at once are possible"),
        (" ".join(str(uuid4()) for _ in range(200)), "Nothing was changed. Not failed"),
    ],
    ids=["empty", "blank", "wrong", "too many", "unknown"],
)
def test_a_list_of_ids_is_checked(operator: httpx.Client, ids: str, told: str) -> None:
    for form, others in (("retry-by-id", {}), ("settle-by-id", {"reason": "by phone"})):
        refused = operator.post(f"/admin/api/forms/{form}/", json={"email_ids": ids, **others})
        assert refused.status_code == 422, refused.text
        assert told in refused.json()["custom_form_error"]


def states(connection: "psycopg.Connection[dict[str, object]]") -> dict[str, object]:
    rows = connection.execute("SELECT id, processing_status FROM incoming_emails")
    return {str(row["id"]): row["processing_status"] for row in rows}


def test_only_a_superuser_sees_and_manages_users(web: Services, operator: httpx.Client) -> None:
    users = "/admin/api/tables/piccolo_user/"
    assert operator.get("/admin/api/tables/").json() == ["incoming_emails"]
    for path in ("", "1/", "ids/", "count/", "schema/", "new/", "?password__match=starts"):
        assert operator.get(users + path).status_code == 404, path
    new = {"username": "otto", "password": PASSWORD, "email": "otto@example.com", "active": True}
    assert operator.post(users, json=new).status_code == 404
    assert operator.patch(f"{users}1/", json={"superuser": True}).status_code == 404
    assert operator.delete(f"{users}2/").status_code == 404
    with httpx.Client(base_url=web.url) as ada, httpx.Client(base_url=web.url) as otto:
        sign_in(ada, "ada").raise_for_status()
        listed = ada.get(users)
        assert [row["username"] for row in listed.json()["rows"]] == ["ada", "olga"]
        assert "pbkdf2" not in listed.text + ada.get(f"{users}1/").text
        made = ada.post(users, json={**new, "admin": True, "superuser": False})
        assert made.status_code == 201, made.text
        assert ada.put(f"{users}1/", json=new).status_code == 405
        assert sign_in(otto, "otto").is_success
        otto_id = ada.get(users, params={"username": "otto"}).json()["rows"][0]["id"]
        assert ada.patch(f"{users}{otto_id}/", json={"active": False}).is_success
        assert otto.get(EMAILS).status_code == 401


def test_a_demoted_superuser_manages_users_no_longer(
    web: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    users = "/admin/api/tables/piccolo_user/"
    with httpx.Client(base_url=web.url) as ada:
        sign_in(ada, "ada").raise_for_status()
        assert ada.get(users).is_success
        connection.execute("UPDATE piccolo_user SET superuser = false WHERE username = 'ada'")
        assert ada.get(users).status_code == 404


def test_emails_received_between_two_times_are_found(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    before, wanted, after = stored(web), stored(web), stored(web)
    for day, email_id in enumerate((before, wanted, after), start=1):
        connection.execute(
            "UPDATE incoming_emails SET (received_at, created_at) = (%(at)s, %(at)s)"
            " WHERE id = %(id)s",
            {"at": f"2026-03-0{day} 12:00Z", "id": email_id},
        )
    between = {
        "received_at": "2026-03-02T00:00:00Z",
        "received_at__operator": "gte",
        "created_at": "2026-03-03T00:00:00Z",
        "created_at__operator": "lt",
    }
    rows = operator.get(EMAILS, params=between).json()["rows"]
    assert [row["id"] for row in rows] == [wanted]


def test_a_path_that_only_begins_like_the_admins_is_unknown(web: Services) -> None:
    for path in ("/adminx", "/admin-ro/", "/administrator/api/tables/"):
        answer = httpx.get(web.url + path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_pages_of_operators_answer_under_known_host_names_alone(services: Services) -> None:
    services.start_web(MAILROOM_ALLOWED_HOSTS="Desk.example.com, localhost")

    def status(path: str, host: str) -> int:
        return httpx.get(services.url + path, headers={"host": host}).status_code

    for path, known in (("/", 303), ("/admin", 308), ("/admin/", 200), ("/overview/figures", 401)):
        for host in ("desk.example.com", "Desk.Example.com:8443", "localhost:8000"):
            assert status(path, host) == known, (path, host)
        for host in ("evil.example", "desk.example.com.evil.example", "127.0.0.1", "[::1", ""):
            assert status(path, host) == 400, (path, host)
    assert status("/health/live", "10.1.2.3:8000") == 200
    webhook = signed(email())
    webhook["headers"]["host"] = "10.1.2.3"
    assert httpx.post(services.url + WEBHOOK_PATH, **webhook).status_code == 200


def test_guessing_passwords_is_stopped_for_the_guesser_alone(web: Services) -> None:
    """Behind a proxy on this machine, by the address that the proxy names."""
    guesser = {"X-Forwarded-For": "192.0.2.1"}
    with httpx.Client(base_url=web.url, headers=guesser) as client:
        answers = [sign_in(client, "olga", "guess").status_code for _ in range(21)]
    assert answers == [401] * 20 + [429]
    with httpx.Client(base_url=web.url, headers={"X-Forwarded-For": "192.0.2.2"}) as client:
        assert sign_in(client, "olga").is_success


def test_every_answer_carries_the_security_headers(web: Services) -> None:
    for path in ("/", "/nothing", "/health/live", "/admin/", "/admin/api/tables/", "/overview/x"):
        answer = httpx.get(web.url + path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["x-frame-options"] == "DENY", path
        assert answer.headers["referrer-policy"] == "same-origin", path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy, path
        assert "script-src 'self';" in policy, path
        assert "strict-transport-security" not in answer.headers


def test_production_behind_https_asks_for_https_and_marks_its_cookies(
    services: Services,
) -> None:
    services.start_web(**PRODUCTION, MAILROOM_ALLOWED_HOSTS="mail.example.com")
    forwarded = {"X-Forwarded-Proto": "https", "Host": "mail.example.com"}
    answer = httpx.get(f"{services.url}/admin/", headers=forwarded)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "Secure" in answer.headers["set-cookie"]
    del forwarded["X-Forwarded-Proto"]
    answer = httpx.get(f"{services.url}/admin/", headers=forwarded)
    assert "strict-transport-security" not in answer.headers
