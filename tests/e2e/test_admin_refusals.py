"""What the admin refuses: bodies without bound, and what would bring Piccolo down."""

import http.client
import select
import socket
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
import pytest
from databases import Databases
from support import Services, create_operators, email, sign_in, signed

from app.desk.admin_mount import LARGEST_BODY
from app.intake.openapi import WEBHOOK_PATH

LOGIN = "/admin/public/login/"
EMAILS = "/admin/api/tables/incoming_emails/"
TIMEOUT = 60.0


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def stranger(web: Services) -> Iterator[httpx.Client]:
    """Somebody with the page's CSRF token who has not signed in."""
    with httpx.Client(base_url=web.url) as client:
        client.get("/admin/public/meta/").raise_for_status()
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        yield client


@pytest.fixture
def superuser(web: Services) -> Iterator[httpx.Client]:
    create_operators(web)
    with httpx.Client(base_url=web.url) as client:
        sign_in(client, "ada").raise_for_status()
        yield client


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == HTTPStatus(status).phrase
    assert answer.json()["detail"]


def connect(web: Services, head: str) -> socket.socket:
    parts = urlsplit(web.url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT)
    connection.sendall(f"POST {LOGIN} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
    return connection


def read_answer(connection: socket.socket) -> httpx.Response:
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(web: Services) -> None:
    with connect(web, f"Content-Length: {LARGEST_BODY + 1}") as connection:
        assert_problem(read_answer(connection), 413)


def test_a_body_without_end_is_refused_while_it_is_sent(web: Services) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    with connect(web, "Transfer-Encoding: chunked") as connection:
        # Far more than the limit and all buffers on the way hold together.
        while not select.select([connection], [], [], 0)[0] and sent < 100 * LARGEST_BODY:
            if select.select([], [connection], [], 0.1)[1]:
                sent += connection.send(chunk[sent % len(chunk) :])
        assert_problem(read_answer(connection), 413)
    assert LARGEST_BODY < sent < 100 * LARGEST_BODY


def test_a_large_body_is_taken(stranger: httpx.Client) -> None:
    body = b'{"username": "nobody", "password": "guess"}'.ljust(LARGEST_BODY)
    assert stranger.post(LOGIN, content=body).status_code == 401
    assert_problem(stranger.post(LOGIN, content=body + b" "), 413)


@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b"null",
        b"\xff",
        b"[" * 50_000,
        rb'{"username": "a\u0000", "password": "guess"}',
        rb'{"username": "\ud800", "password": "guess"}',
        b'{"username": ["a"], "password": "guess"}',
        b'{"username": "olga", "password": 5}',
        b'{"username": "olga", "password": {"a": 1}}',
        b"username=olga&password=guess",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_login_that_makes_no_sense_is_refused(
    web: Services, stranger: httpx.Client, body: bytes
) -> None:
    assert_problem(stranger.post(LOGIN, content=body), 400)
    assert "Traceback" not in web.log()


def test_an_operator_is_told_what_cannot_be(web: Services, superuser: httpx.Client) -> None:
    httpx.post(web.url + WEBHOOK_PATH, **signed(email())).raise_for_status()
    for wrong in (
        "retry_count=99999999999",
        "from_email=%00",
        "extracted_data={}",
        "received_at=0001-01-01T00:00:00%2B14:00",
        "__page=1&__page=2",
        "from_email=a&from_email=b",
        "received_at__operator=lt&received_at__operator=gt",
    ):
        for path in (EMAILS, f"{EMAILS}count/"):
            answer = superuser.get(f"{path}?{wrong}")
            assert 400 <= answer.status_code < 500, (path, wrong, answer.text)
    users = "/admin/api/tables/piccolo_user/"
    for path in (
        f"{EMAILS}?__order=password",
        f"{EMAILS}?__order=",
        f"{EMAILS}?__page=99999999999999999999",
        f"{EMAILS}?__page_size=-1",
        f"{EMAILS}ids/?search=%00",
        f"{users}?__order=nothing",
        f"{users}99999999999999/",
    ):
        assert 400 <= superuser.get(path).status_code < 500, path
    wrong_time = {"last_login": "0001-01-01T00:00:00+14:00"}
    for values in ({"username": "a\0b"}, wrong_time):
        assert_problem(superuser.patch(f"{users}1/", json=values), 400)
    assert "Traceback" not in web.log()


def test_the_api_pages_of_piccolo_are_not_there(superuser: httpx.Client) -> None:
    for path in ("public/docs/", "api/docs/", "public/docs", "public/%64ocs/", "api/docs/x"):
        assert_problem(superuser.get(f"/admin/{path}"), 404)


def test_without_a_database_nobody_signs_in_or_out_and_is_told_why(services: Services) -> None:
    name = Databases.name_of(services.environment["DATABASE_URL"])
    services.environment["DATABASE_URL"] = f"postgresql://nobody@127.0.0.1:1/{name}"
    services.start_web()
    with httpx.Client(base_url=services.url, cookies={"id": "session"}) as client:
        answer = sign_in(client, "olga")
        assert_problem(answer, 503)
        assert "/health/ready" in answer.json()["detail"]
        assert_problem(client.post("/admin/public/logout/"), 503)
        assert_problem(client.get(EMAILS), 503)
    assert "Server error" not in services.log()
