"""The second step: an authenticator app is set up, asked for at each way in, and turned off."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import httpx
import psycopg
import pyotp
import pytest
from axe_playwright_python.sync_playwright import Axe
from cryptography.fernet import Fernet
from databases import Databases
from fork_server import ROUNDS
from piccolo_api.encryption.providers import FernetProvider
from playwright.sync_api import Browser, expect
from support import PASSWORD, Services, open_page, sign_in

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
KEY = Fernet.generate_key().decode()
PAGE = "/account/second-step"
UNUSED = "UPDATE authenticator_secret SET last_used_at = NULL"


@pytest.fixture(scope="module")
def shared_web(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    url = databases.create(migrated=True)
    running = Services(url, tmp_path_factory.mktemp("web"))
    running.environment["MAILROOM_SECOND_STEP_KEY"] = KEY
    running.start_web()
    yield running
    running.end()
    databases.drop(url)


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def client(operated: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=operated.url, timeout=120) as client:
        yield client


@pytest.fixture
def costly(operated: Services) -> Iterator[httpx.Client]:
    """A client of a web process whose hashes cost what they cost outside of tests."""
    own = Services(operated.environment["DATABASE_URL"], operated.folder)
    try:
        own.start_web(MAILROOM_SECOND_STEP_KEY=KEY, **{ROUNDS: ""})
        with httpx.Client(base_url=own.url, timeout=120) as client:
            yield client
    finally:
        own.end()


@pytest.fixture
def secret(operated: Services, connection: Connection) -> str:
    """That of olga's app, set up and not used yet."""
    return turn_on(connection)


def turn_on(connection: Connection) -> str:
    """Have olga asked for codes. Returns her secret."""
    secret = pyotp.random_base32()
    connection.execute(
        "INSERT INTO authenticator_secret (user_id, secret, recovery_codes, created_at,"
        " recovery_codes_used_at) SELECT id, %s, '{}', now(), '{}' FROM piccolo_user"
        " WHERE username = 'olga'",
        [FernetProvider(KEY.encode()).encrypt(secret)],
    )
    return secret


def token_on(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return found[1]


def enter(client: httpx.Client, name: str = "olga", back: str = "/emails") -> httpx.Response:
    """Give the password."""
    token = token_on(client.get("/sign-in", params={"next": back}).text)
    form = {"username": name, "password": PASSWORD, "next": back, "token": token}
    return client.post("/sign-in", data=form)


def give(client: httpx.Client, code: str, back: str = "/emails") -> httpx.Response:
    """Give a code, after the password."""
    token = token_on(client.get("/sign-in/code").text)
    return client.post("/sign-in/code", data={"token": token, "next": back, "code": code})


def code_of(secret: str, *, later: int = 0) -> str:
    """What an app shows, now or some steps later."""
    return pyotp.TOTP(secret).at(int(time.time()) + 30 * later)


def change(client: httpx.Client, **form: str) -> httpx.Response:
    return client.post(PAGE, data={"token": token_on(client.get(PAGE).text), **form})


def begin(client: httpx.Client) -> tuple[str, str]:
    """Begin to set it up. Returns the secret, and what the form carries."""
    page = change(client, action="begin", password=PASSWORD).text
    found = re.search(r'name="pending" value="(.*?)"', page)
    key = re.search(r'id="key">([A-Z2-7]+)<', page)
    assert found and key, page
    return key[1], found[1]


def set_up(client: httpx.Client) -> tuple[str, list[str]]:
    """Returns the secret and the recovery codes."""
    secret, pending = begin(client)
    page = change(client, action="confirm", pending=pending, code=code_of(secret)).text
    codes = re.findall(r"<code>([a-z0-9]{6}-[a-z0-9]{6})</code>", page)
    assert len(codes) == 8, page
    return secret, codes


def acts(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT act, result FROM audit_entries ORDER BY at").fetchall()
    return [(row["act"], row["result"]) for row in rows]


def test_it_counts_once_a_code_of_the_app_was_typed(
    costly: httpx.Client, connection: Connection
) -> None:
    enter(costly)
    assert change(costly, action="begin", password="guess").status_code == 401
    secret, pending = begin(costly)
    wrong = change(costly, action="confirm", pending=pending, code="000000")
    assert wrong.status_code == 401
    assert secret in wrong.text
    for other in ("", "fernet-x", pending[:-2]):
        assert change(costly, action="confirm", pending=other, code="1").status_code == 400
    assert connection.execute("SELECT FROM authenticator_secret").fetchall() == []
    with httpx.Client(base_url=costly.base_url, timeout=120) as ada:
        enter(ada, "ada")
        stolen = change(ada, action="confirm", pending=pending, code=code_of(secret))
        assert "It took too long" in stolen.text
    codes = set_up(costly)[1]
    assert not any(code in costly.get(PAGE).text for code in codes)
    assert "8 recovery codes are left" in costly.get(PAGE).text
    row = connection.execute("SELECT * FROM authenticator_secret").fetchone()
    assert row is not None
    assert row["secret"].startswith("fernet-")
    assert all(kept.startswith("pbkdf2_sha256$600000$") for kept in row["recovery_codes"])
    again = change(costly, action="confirm", pending=pending, code=code_of(secret))
    assert again.status_code == 400
    assert "on already" in again.text
    assert ("second_step.on", "done") in acts(connection)


def test_no_way_in_does_without_it(client: httpx.Client, secret: str) -> None:
    answer = enter(client)
    assert answer.headers["location"] == "/sign-in/code?next=%2Femails"
    assert "id" not in client.cookies
    assert client.get("/emails").status_code == 303
    wrong = give(client, "000000")
    assert wrong.status_code == 401
    assert "The code is wrong" in wrong.text
    assert "id" not in client.cookies
    assert give(client, code_of(secret), back="//evil.example").headers["location"] == "/"
    assert client.get("/emails").status_code == 200
    # What was good for this sign-in is good for no other.
    assert client.get("/sign-in/code").headers["location"].startswith("/sign-in?")


def test_piccolo_admins_own_login_asks_for_it(
    client: httpx.Client, secret: str, connection: Connection
) -> None:
    login = {"username": "olga", "password": PASSWORD}
    asked = sign_in(client, "olga")
    assert (asked.status_code, "MFA code required" in asked.text) == (401, True)
    for code in ("000000", "", secret):
        assert client.post("/admin/public/login/", json={**login, "mfa_code": code}).is_error
    assert "id" not in client.cookies
    right = {**login, "mfa_code": code_of(secret)}
    assert client.post("/admin/public/login/", json=right).is_success
    assert client.get("/admin/api/user/").is_success
    for path in ("/admin/api/mfa-setup/", "/admin/api/%6dfa-setup/"):
        for action in ("revoke", "register"):
            content = {"action": action, "password": PASSWORD}
            answer = client.post(path, json=content)
            assert answer.headers["location"] == PAGE, answer.text
    client.cookies.delete("id")
    assert sign_in(client, "olga").status_code == 401


def test_a_code_is_good_once_and_none_before_it(
    client: httpx.Client, secret: str, connection: Connection
) -> None:
    def try_it(code: str) -> int:
        enter(client)
        answer = give(client, code).status_code
        client.cookies.clear()
        return answer

    now, later = code_of(secret), code_of(secret, later=1)
    assert try_it(later) == 303
    assert [try_it(later), try_it(now)] == [401, 401]
    connection.execute(UNUSED)
    # In the time of a step the app may be behind, and it may have gone by since.
    assert try_it(code_of(secret, later=3)) == 401
    assert try_it(code_of(secret, later=-3)) == 401


def test_of_two_who_come_with_one_code_one_is_let_in(operated: Services, secret: str) -> None:
    def try_it(code: str) -> int:
        with httpx.Client(base_url=operated.url, timeout=120) as client:
            enter(client)
            return give(client, code).status_code

    with ThreadPoolExecutor(4) as thieves:
        answers = list(thieves.map(try_it, [code_of(secret)] * 4))
    assert sorted(answers) == [303, 401, 401, 401]


def test_a_recovery_code_lets_in_once(client: httpx.Client, connection: Connection) -> None:
    enter(client)
    _, codes = set_up(client)
    for typed, answer in ((f" {codes[0].upper()} ", 303), (codes[0], 401), (codes[1], 303)):
        client.cookies.clear()
        enter(client)
        assert give(client, typed).status_code == answer
    assert "6 recovery codes are left" in client.get(PAGE).text
    found = connection.execute(
        "SELECT details FROM audit_entries WHERE act = 'session.sign_in' ORDER BY at"
    ).fetchall()
    assert found[-1]["details"] == {"by": "password", "second_step": "recovery code"}


def test_few_codes_are_tried_from_wherever(
    client: httpx.Client, secret: str, connection: Connection
) -> None:
    enter(client)
    answers = []
    for number in range(6):
        client.headers["X-Forwarded-For"] = f"198.51.100.{number}"
        answers.append(give(client, "000000" if number < 5 else code_of(secret)))
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 300
    assert "Too many codes were tried for this user" in answers[-1].text
    login = {"username": "olga", "password": PASSWORD, "mfa_code": code_of(secret)}
    sign_in(client, "olga")
    assert client.post("/admin/public/login/", json=login).status_code == 429
    connection.execute("UPDATE login_attempts SET began_at = began_at - interval '5 minutes'")
    assert give(client, code_of(secret)).status_code == 303


@pytest.mark.parametrize("meanwhile", ["password = 'new'", "active = false", "admin = false"])
def test_what_changed_after_the_password_counts(
    client: httpx.Client, secret: str, connection: Connection, meanwhile: str
) -> None:
    enter(client)
    token = token_on(client.get("/sign-in/code").text)
    connection.execute(f"UPDATE piccolo_user SET {meanwhile} WHERE username = 'olga'")
    form = {"token": token, "next": "/emails", "code": code_of(secret)}
    answer = client.post("/sign-in/code", data=form)
    assert answer.headers["location"] == "/sign-in?next=%2Femails&late="
    assert "sign in again" in client.get(answer.headers["location"]).text
    assert "id" not in client.cookies


def test_who_is_slow_begins_again(
    client: httpx.Client, secret: str, connection: Connection
) -> None:
    enter(client)
    connection.execute("UPDATE sign_in_steps SET expires_at = now()")
    token = "0" * 64
    form = {"token": token, "next": "/emails", "code": code_of(secret)}
    assert client.post("/sign-in/code", data=form).status_code == 303
    assert client.get("/sign-in/code?next=/emails").headers["location"].startswith("/sign-in?")


def test_it_is_turned_off_with_the_password(
    client: httpx.Client, secret: str, connection: Connection
) -> None:
    enter(client)
    give(client, code_of(secret))
    assert change(client, action="off", password="guess").status_code == 401
    assert change(client, action="begin off", password=PASSWORD).status_code == 400
    off = change(client, action="off", password=PASSWORD)
    assert off.headers["location"] == "/account?done=second-step-off"
    client.cookies.clear()
    assert enter(client).headers["location"] == "/emails"
    assert ("second_step.off", "done") in acts(connection)


def test_an_administrator_resets_anothers(
    operated: Services, client: httpx.Client, secret: str, connection: Connection
) -> None:
    enter(client, "ada")
    page = client.get("/people").text
    row = connection.execute("SELECT id FROM piccolo_user WHERE username = 'olga'").fetchone()
    assert row is not None
    form = {"token": token_on(page), "user": str(row["id"]), "action": "reset-second-step"}
    assert client.post("/people", data=form).status_code == 303
    client.cookies.clear()
    assert enter(client).headers["location"] == "/emails"
    turn_on(connection)
    reset = operated.run("mailroom", "user", "reset-second-step", "olga")
    assert reset.returncode == 0, reset.stderr
    again = operated.run("mailroom", "user", "reset-second-step", "olga")
    assert "nothing to reset" in again.stderr
    assert "second step off" in operated.run("mailroom", "user", "list").stdout
    client.cookies.clear()
    assert enter(client).headers["location"] == "/emails"
    assert acts(connection).count(("second_step.reset", "done")) == 2


def test_without_the_key_it_is_said_what_is_missing(
    operated: Services, secret: str, databases: Databases
) -> None:
    own = Services(operated.environment["DATABASE_URL"], operated.folder)
    try:
        own.start_web()
        with httpx.Client(base_url=own.url, timeout=120) as client:
            enter(client)
            answer = give(client, code_of(secret))
            assert answer.status_code == 503
            assert "MAILROOM_SECOND_STEP_KEY is missing" in answer.text
            client.cookies.clear()
            enter(client, "ada")
            assert "Fernet.generate_key()" in client.get(PAGE).text
            assert change(client, action="begin", password=PASSWORD).status_code == 503
    finally:
        own.end()


def test_it_is_set_up_and_used_by_keyboard(
    browser: Browser, operated: Services, connection: Connection
) -> None:
    with open_page(browser, operated.url) as page:
        page.goto("/emails?q=status:failed")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("olga")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/emails?q=status:failed")
        page.goto("/account")
        page.get_by_role("link", name="Second step").press("Enter")
        page.get_by_label("Your password").press_sequentially(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("img", name="QR code of the key")).to_be_visible()
        assert serious(page) == []
        expect(page.get_by_label("Code that the app shows")).to_be_focused()
        secret = page.locator("#key").inner_text()
        page.keyboard.type(code_of(secret))
        page.keyboard.press("Enter")
        expect(page.locator(".codes li")).to_have_count(8)
        assert serious(page) == []
        connection.execute(UNUSED)
        page.get_by_role("button", name="Sign out").press("Enter")
        page.wait_for_url("**/sign-in*")
        page.goto("/emails?q=status:failed")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("olga")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Code of your authenticator app")).to_be_focused()
        assert serious(page) == []
        page.keyboard.type(code_of(secret))
        page.keyboard.press("Enter")
        page.wait_for_url("**/emails?q=status:failed")


def serious(page: Any) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [one["id"] for one in found if one["impact"] in ("serious", "critical")]
