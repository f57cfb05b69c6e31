"""Signing in at `/admin`: few passwords are tried, and email is taken meanwhile; sessions end."""

import contextlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from databases import Databases
from piccolo.apps.user.tables import BaseUser
from support import (
    PASSWORD,
    PROJECT,
    Services,
    create_operators,
    email,
    free_port,
    reach,
    sign_in,
    signed,
    wait_until,
)

from app.intake.openapi import WEBHOOK_PATH

EMAILS = "/admin/api/tables/incoming_emails/"
USERS = "/admin/api/tables/piccolo_user/"
NEW_PASSWORD = "another password"

# What `piccolo user change_password` does, which asks for the password at a terminal.
CHANGE_PASSWORD = """
import sys
from piccolo.apps.user.tables import BaseUser
BaseUser.update_password_sync("olga", sys.argv[1])
"""

ADDRESSES = itertools.count(1)

Connection = psycopg.Connection[dict[str, object]]


# Two processes on one database; every test has addresses of its own.
@pytest.fixture(scope="module")
def web(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    url = databases.create(migrated=True)
    running = Services(url, tmp_path_factory.mktemp("web"))
    create_operators(running)
    running.start_web()
    yield running
    running.end()
    databases.drop(url)


@pytest.fixture(scope="module")
def other_url(web: Services) -> str:
    """Another web process on the same database."""
    port = str(free_port())
    process = web.start("mailroom", "web", MAILROOM_PORT=port)
    wait_until(lambda: process.poll() is None and reach(f"http://127.0.0.1:{port}"), web.log)
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def users(web: Services) -> Iterator[Connection]:
    """A connection to their database, in which the passwords are put back."""
    with psycopg.connect(
        web.environment["DATABASE_URL"], autocommit=True, row_factory=psycopg.rows.dict_row
    ) as connection:
        before = connection.execute("SELECT username, password FROM piccolo_user").fetchall()
        yield connection
        for user in before:
            connection.execute(
                "UPDATE piccolo_user SET password = %(password)s WHERE username = %(username)s",
                user,
            )


@contextlib.contextmanager
def operator(web: Services, name: str) -> Iterator[httpx.Client]:
    """Somebody who has signed in, from an address of their own."""
    address = {"X-Forwarded-For": f"198.51.100.{next(ADDRESSES)}"}
    with httpx.Client(base_url=web.url, headers=address, timeout=120) as client:
        sign_in(client, name).raise_for_status()
        yield client


def try_to_sign_in(url: str, address: str, *, is_right: bool = False) -> int:
    with httpx.Client(base_url=url, headers={"X-Forwarded-For": address}, timeout=120) as client:
        return sign_in(client, "olga", PASSWORD if is_right else "guess").status_code


def test_email_is_taken_while_many_strangers_guess(web: Services, users: Connection) -> None:
    """Counted: a hash is computed at the cost of several emails, if these have to wait for it."""
    costly = BaseUser.hash_password(PASSWORD)
    users.execute("UPDATE piccolo_user SET password = %s WHERE username = 'olga'", [costly])
    httpx.post(web.url + WEBHOOK_PATH, **signed(email())).raise_for_status()
    guesses: list[int] = []
    with ThreadPoolExecutor(24) as strangers:
        guessing = [
            strangers.submit(try_to_sign_in, web.url, f"192.0.2.{n}")
            for n in range(24)
            for _ in "12"
        ]
        emails = 0
        with httpx.Client(base_url=web.url, timeout=60) as client:
            while not all(guess.done() for guess in guessing):
                assert client.post(WEBHOOK_PATH, **signed(email())).status_code == 200
                emails += 1
        guesses = [guess.result() for guess in guessing]
    assert set(guesses) == {401}
    assert emails >= len(guesses)


def test_attempts_are_counted_for_all_processes_by_network(web: Services, other_url: str) -> None:
    urls = [web.url, other_url]
    answers = [try_to_sign_in(urls[n % 2], f"2001:db8:1:2::{n}") for n in range(21)]
    assert answers == [401] * 20 + [429]
    for url in urls:
        assert try_to_sign_in(url, "2001:db8:1:2:ffff::1", is_right=True) == 429
        assert try_to_sign_in(url, "2001:db8:1:3::1", is_right=True) == 200


def test_attempts_at_once_are_counted_one_by_one(web: Services) -> None:
    with ThreadPoolExecutor(30) as guessers:
        answers = list(guessers.map(try_to_sign_in, [web.url] * 30, ["203.0.113.1"] * 30))
    assert sorted(answers) == [401] * 20 + [429] * 10


def test_who_tried_too_often_is_told_how_long_to_wait_and_then_let_in(
    web: Services, users: Connection
) -> None:
    assert try_to_sign_in(web.url, "203.0.113.2") == 401
    users.execute("UPDATE login_attempts SET attempts = 20 WHERE network = '203.0.113.2'")
    with httpx.Client(base_url=web.url, headers={"X-Forwarded-For": "203.0.113.2"}) as client:
        refused = sign_in(client, "olga")
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert 0 < int(refused.headers["retry-after"]) <= 300
        users.execute("UPDATE login_attempts SET began_at = began_at - interval '5 minutes'")
        assert sign_in(client, "olga").is_success


@pytest.mark.parametrize("by", ["superuser", "piccolo", "oneself"])
def test_sessions_end_with_the_password_whoever_changes_it(
    web: Services, users: Connection, by: str
) -> None:
    with operator(web, "olga") as olga, operator(web, "ada") as ada:
        assert olga.get(EMAILS).is_success
        olga_id = ada.get(USERS, params={"username": "olga"}).json()["rows"][0]["id"]
        match by:
            case "superuser":
                ada.patch(f"{USERS}{olga_id}/", json={"password": NEW_PASSWORD}).raise_for_status()
            case "piccolo":
                changed = web.run(
                    *("python", "-c", CHANGE_PASSWORD, NEW_PASSWORD),
                    PYTHONPATH=str(PROJECT),
                    PICCOLO_CONF="piccolo_conf",
                )
                assert changed.returncode == 0, changed.stderr
            case "oneself":
                content = {
                    "current_password": PASSWORD,
                    "new_password": NEW_PASSWORD,
                    "confirm_new_password": NEW_PASSWORD,
                }
                answer = olga.post("/admin/api/change-password/", json=content)
                assert answer.status_code == 303, answer.text
        assert olga.get(EMAILS).status_code == 401
        assert ada.get(EMAILS).is_success
        left = users.execute("SELECT user_id FROM sessions").fetchall()
        assert olga_id not in {row["user_id"] for row in left}
        assert sign_in(olga, "olga", NEW_PASSWORD).is_success


@pytest.mark.parametrize("password", ["short", "x" * 129, "pbkdf2_sha256$1$a$b"])
def test_a_superuser_is_told_which_passwords_cannot_be(web: Services, password: str) -> None:
    with operator(web, "ada") as ada:
        assert ada.patch(f"{USERS}1/", json={"password": password}).status_code == 400
        assert ada.get(EMAILS).is_success


def test_a_web_process_deletes_what_is_over(web: Services, users: Connection) -> None:
    """At its start already."""
    users.execute(
        "INSERT INTO sessions (token, user_id, expiry_date, max_expiry_date)"
        " VALUES ('expired', 1, now() - interval '1 day', now())"
    )
    process = web.start("mailroom", "web", MAILROOM_PORT=str(free_port()))
    expired = "SELECT FROM sessions WHERE token = 'expired'"
    wait_until(lambda: not users.execute(expired).fetchall(), web.log)
    process.terminate()
    assert process.wait(60) == 0
