"""Piccolo Admin at `/admin`, as a browser talks to it."""

import re
from collections.abc import Iterator
from typing import Any

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
FILES = "/admin/api/tables/email_attachments/"


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
    assert page.status_code == 303
    assert page.headers["location"] == "/sign-in?next=%2Fadmin%2F"
    with httpx.Client(base_url=web.url) as client:
        sign_in(client, "olga").raise_for_status()
        page = client.get("/admin/")
        assert page.status_code == 200
        assert "text/html" in page.headers["content-type"]
        for address in re.findall(r'(?:href|src)="(\./[^"]+)"', page.text):
            client.get(f"/admin/{address}").raise_for_status()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        "/admin/public/login/",
        "/admin/public/login",
        "/admin/public/logout/",
        "/admin/public/%6cogin/",
        "/admin/%70ublic/logou%74/",
        "/%61dmin/public/login/",
        "/admin//public/login/",
        "/admin/public%2flogin/",
    ],
)
def test_pages_that_are_piccolos_own_lead_to_the_sign_in(
    web: Services, path: str, method: str
) -> None:
    answer = httpx.request(method, web.url + path)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fadmin%2F"


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


def test_an_operator_sees_what_became_of_files_and_changes_nothing(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    older, newer = stored(web), stored(web)
    connection.execute(
        "INSERT INTO email_attachments (email, position, url, filename, state, reason)"
        " SELECT email, n, 'https://example.com/secret-link', n || '.pdf', state, reason"
        " FROM unnest(%s::uuid[]) AS email,"
        " (VALUES (0, 'kept', NULL), (1, 'failed', 'gone')) AS file (n, state, reason)",
        [[older, newer]],
    )
    schema = operator.get(f"{FILES}schema/").json()
    order = ",".join(
        f"{'' if by['ascending'] else '-'}{by['column']}" for by in schema["extra"]["order_by"]
    )
    listed = operator.get(FILES, params={"__order": order}).json()["rows"]
    assert [(row["email"], row["position"]) for row in listed] == [
        (newer, 1),
        (newer, 0),
        (older, 1),
        (older, 0),
    ]
    assert listed[0]["reason"] == "gone"
    failed = operator.get(FILES, params={"state": "failed", "email": older}).json()["rows"]
    assert [row["filename"] for row in failed] == ["1.pdf"]
    # Whoever has its link may have the file.
    row = f"{FILES}{failed[0]['id']}/"
    single = operator.get(row)
    assert single.json()["filename"] == "1.pdf"
    assert "secret-link" not in single.text + operator.get(FILES).text
    before = connection.execute("SELECT * FROM email_attachments").fetchall()
    content = {"email": newer, "state": "kept"}
    assert operator.post(FILES, json=content).status_code == 403
    assert operator.patch(row, json=content).status_code == 403
    assert operator.put(row, json=content).status_code in (403, 405)
    assert operator.delete(row).status_code == 403
    assert operator.delete(FILES).status_code in (403, 405)
    assert connection.execute("SELECT * FROM email_attachments").fetchall() == before
    with httpx.Client(base_url=web.url) as client:
        assert client.get(FILES).status_code in (401, 403)


def at_the_desk(operator: httpx.Client, email_id: str, **form: str) -> httpx.Response:
    """What a form of the email's page does."""
    found = re.search(r'name="token" value="([0-9a-f]+)"', operator.get("/lint").text)
    assert found is not None
    return operator.post(f"/emails/{email_id}", data={"token": found[1], **form})


def test_an_operator_retries_a_failed_email_and_it_says_who_did(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    email_id = stored(web)
    refused = at_the_desk(operator, email_id, action="retry")
    assert "nothing was done: the email is received by now" in refused.text
    assert states(connection) == {email_id: "received"}
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    assert at_the_desk(operator, email_id, action="retry").status_code == 303
    row = operator.get(f"{EMAILS}{email_id}/").json()
    assert row["processing_status"] == "queued"
    assert "olga" in str(row["attempt_errors"])
    web.start_worker()
    wait_until(
        lambda: operator.get(f"{EMAILS}{email_id}/").json()["processing_status"] == "completed",
        web.log,
    )


def test_an_operator_settles_a_failed_email_with_a_reason(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    email_id = stored(web)
    form = {"action": "settle", "reason": "answered by phone"}
    assert "nothing was done" in at_the_desk(operator, email_id, **form).text
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    assert "say why" in at_the_desk(operator, email_id, action="settle", reason="").text
    assert states(connection) == {email_id: "failed"}
    assert at_the_desk(operator, email_id, **form).status_code == 303
    assert states(connection) == {email_id: "completed"}
    told = web.run("mailroom", "show", email_id).stdout
    assert "completed by olga: answered by phone" in " ".join(told.split())


def test_the_log_says_what_an_operator_did_without_a_name(
    web: Services,
    operator: httpx.Client,
    connection: "psycopg.Connection[dict[str, object]]",
) -> None:
    one, two = stored(web), stored(web)
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    at_the_desk(operator, one, action="retry")
    at_the_desk(operator, two, action="discard", reason="by phone")
    row = connection.execute("SELECT id FROM piccolo_user WHERE username = 'olga'").fetchone()
    assert row is not None
    by = f"by=user:{row['id']}"
    told = re.findall(r"operator_acted +\[app\.desk\.email_page\] (.*) request_id=", web.log())
    assert told == [f"action=retry {by} email_id={one}", f"action=discard {by} email_id={two}"]
    assert "olga" not in web.log()


def test_there_are_no_forms_beside_those_of_the_desk(operator: httpx.Client) -> None:
    assert operator.get("/admin/api/forms/").json() == []


def states(connection: "psycopg.Connection[dict[str, object]]") -> dict[str, object]:
    rows = connection.execute("SELECT id, processing_status FROM incoming_emails")
    return {str(row["id"]): row["processing_status"] for row in rows}


def test_only_a_superuser_sees_and_manages_users(web: Services, operator: httpx.Client) -> None:
    users = "/admin/api/tables/piccolo_user/"
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
        connection.execute("UPDATE piccolo_user SET superuser = (username <> 'ada')")
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

    for path, known in (
        ("/", 303),
        ("/admin", 308),
        ("/admin/", 303),
        ("/sign-in", 200),
        ("/overview/figures", 401),
    ):
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
    answer = httpx.get(f"{services.url}/admin/public/meta/", headers=forwarded)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "Secure" in answer.headers["set-cookie"]
    del forwarded["X-Forwarded-Proto"]
    answer = httpx.get(f"{services.url}/admin/", headers=forwarded)
    assert "strict-transport-security" not in answer.headers
