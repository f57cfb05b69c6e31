"""Signing in by OpenID Connect, with a real provider on loopback."""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import psycopg
import pyotp
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import rsa
from databases import Databases
from oidc_provider import RunningProvider, running_provider, sign_as_ever
from piccolo_api.encryption.providers import FernetProvider
from playwright.sync_api import Browser, expect
from support import PASSWORD, Services, open_page, sign_in

from app.desk.login_limit import MOST_WAYS

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
# Of the provider's own library, which its server uses in older ways.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
KEY = Fernet.generate_key().decode()
BACK = "/sign-in/oidc/back"


@pytest.fixture(scope="module")
def module_provider() -> Iterator[RunningProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def shared_web(
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    module_provider: RunningProvider,
) -> Iterator[Services]:
    url = databases.create(migrated=True)
    running = Services(url, tmp_path_factory.mktemp("web"))
    running.environment |= {
        **module_provider.register(running.url + BACK),
        "MAILROOM_OIDC_NAME": "Example ID",
        "MAILROOM_OIDC_MAKES_PEOPLE": "true",
        "MAILROOM_OIDC_ROLES": "admin=it, operator=support",
        "MAILROOM_SECOND_STEP_KEY": KEY,
    }
    running.start_web()
    yield running
    running.end()
    databases.drop(url)


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def provider(module_provider: RunningProvider) -> RunningProvider:
    module_provider.reset()
    module_provider.know("otto-1", preferred_username="otto", groups=["support", "choir"])
    return module_provider


@pytest.fixture
def client(operated: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=operated.url, timeout=120) as client:
        yield client


def leave(client: httpx.Client, subject: str = "otto-1", back: str = "/emails") -> str:
    """Go to the provider and sign in there. Returns where it sends one."""
    there = client.get("/sign-in/oidc", params={"next": back})
    assert there.status_code == 303, there.text
    sent = httpx.post(there.headers["location"], data={"sub": subject})
    assert sent.status_code == 302, sent.text
    return sent.headers["location"]


def enter(client: httpx.Client, subject: str = "otto-1", back: str = "/emails") -> httpx.Response:
    """Sign in by the provider."""
    return client.get(leave(client, subject, back))


def people(connection: Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT username, CASE WHEN superuser THEN 'admin' ELSE coalesce(role, 'operator') END"
        " AS role FROM piccolo_user LEFT JOIN operator_accounts ON user_id = piccolo_user.id"
    ).fetchall()
    return {row["username"]: row["role"] for row in rows}


def signs_in(connection: Connection) -> list[tuple[str, str | None, Any]]:
    rows = connection.execute(
        "SELECT result, object, details FROM audit_entries WHERE act = 'session.sign_in'"
        " ORDER BY at"
    ).fetchall()
    return [(row["result"], row["object"], row["details"]) for row in rows]


def test_who_the_provider_vouches_for_is_let_in(
    client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    answer = enter(client, back="/emails?q=status:failed")
    assert answer.headers["location"] == "/emails?q=status:failed"
    assert client.get("/emails").status_code == 200
    assert people(connection) == {"ada": "admin", "olga": "operator", "otto": "operator"}
    assert signs_in(connection) == [("done", "otto", {"by": "oidc"})]
    ((_, asked),) = [one for one in provider.asked if "code_challenge" in one[1]][:1]
    ((_, redeemed),) = [one for one in provider.asked if one[0] == "/oauth2/token"]
    digest = hashlib.sha256(redeemed["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"] == "openid profile email"
    assert len(asked["state"]) > 40 and len(asked["nonce"]) > 40
    assert redeemed["redirect_uri"] == asked["redirect_uri"]
    # Nobody signs in by a password with it.
    assert sign_in(client, "otto", "none").status_code == 401


def test_the_same_subject_is_the_same_user_whatever_it_is_called(
    client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    enter(client)
    provider.know("otto-1", preferred_username="olga", email="ada@example.com", groups=["it"])
    enter(client)
    assert people(connection) == {"ada": "admin", "olga": "operator", "otto": "admin"}
    # Another one who is called as he was is another one.
    provider.know("otto-2", preferred_username="otto", groups=["support"])
    refused = enter(client, "otto-2")
    assert refused.status_code == 403
    assert "somebody is called otto here already" in refused.text.lower()
    provider.know("x", preferred_username="kim", email="ada@example.com", groups=["support"])
    assert enter(client, "x").status_code == 303
    assert people(connection)["kim"] == "operator"
    provider.know(
        "y", preferred_username="eve", email="ada@example.com", email_verified=True, groups=["it"]
    )
    assert enter(client, "y").status_code == 403


def test_groups_decide_at_each_sign_in(
    client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    enter(client)
    client.cookies.clear()
    provider.know("otto-1", preferred_username="otto", groups=["choir"])
    refused = enter(client)
    assert refused.status_code == 403
    assert "Example ID names no group of yours that may come in here" in refused.text
    assert "id" not in client.cookies
    assert signs_in(connection)[-1][0] == "refused"
    provider.know("otto-1", groups="it")
    assert enter(client).status_code == 303
    assert people(connection)["otto"] == "admin"
    connection.execute("UPDATE piccolo_user SET superuser = (username = 'otto')")
    provider.know("otto-1", groups=["support"])
    refused = enter(client)
    assert refused.status_code == 403
    assert "Nobody else is an administrator" in refused.text
    assert people(connection)["otto"] == "admin"


@pytest.mark.parametrize("groups", [7, True, 1.5, None, {"choir": {}}, [["it"], None]])
def test_groups_of_any_shape_that_name_none_are_refused(
    client: httpx.Client, provider: RunningProvider, groups: object
) -> None:
    provider.change = lambda claims: claims.update(groups=groups)
    refused = enter(client)
    assert refused.status_code == 403
    assert "Example ID names no group of yours that may come in here" in refused.text


def test_who_may_not_sign_in_any_longer_may_not_by_the_provider(
    client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    enter(client)
    client.cookies.clear()
    connection.execute("UPDATE piccolo_user SET active = false WHERE username = 'otto'")
    refused = enter(client)
    assert refused.status_code == 403
    assert "ask an administrator" in refused.text
    assert "id" not in client.cookies


def test_a_user_who_is_there_is_connected_by_a_command(
    operated: Services, client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    provider.know("olga-7", preferred_username="olga", groups=["support"])
    assert "`mailroom user link olga olga-7`" in enter(client, "olga-7").text
    named = {"MAILROOM_OIDC_ISSUER": provider.issuer, "MAILROOM_OIDC_CLIENT_ID": "any"}
    without = operated.run("mailroom", "user", "link", "olga", "olga-7")
    assert "MAILROOM_OIDC_ISSUER is not set" in without.stderr
    linked = operated.run("mailroom", "user", "link", "olga", "olga-7", **named)
    assert linked.returncode == 0, linked.stderr
    assert enter(client, "olga-7").status_code == 303
    assert "otto" not in people(connection)
    acts = connection.execute("SELECT act FROM audit_entries WHERE door = 'command'").fetchall()
    assert [one["act"] for one in acts] == ["user.link"]


def test_a_code_of_the_app_is_asked_for_all_the_same(
    client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    enter(client)
    client.cookies.clear()
    secret = pyotp.random_base32()
    connection.execute(
        "INSERT INTO authenticator_secret (user_id, secret, recovery_codes, created_at,"
        " recovery_codes_used_at) SELECT id, %s, '{}', now(), '{}' FROM piccolo_user"
        " WHERE username = 'otto'",
        [FernetProvider(KEY.encode()).encrypt(secret)],
    )
    asked = enter(client)
    assert asked.headers["location"] == "/sign-in/code?next=%2Femails"
    assert "id" not in client.cookies
    page = client.get("/sign-in/code").text
    token = page.partition('name="token" value="')[2].partition('"')[0]
    form = {"token": token, "next": "/emails", "code": pyotp.TOTP(secret).now()}
    assert client.post("/sign-in/code", data=form).headers["location"] == "/emails"
    assert signs_in(connection)[-1] == ("done", "otto", {"by": "oidc", "second_step": "code"})


def test_an_answer_serves_one_browser_once(
    operated: Services, client: httpx.Client, provider: RunningProvider
) -> None:
    back = leave(client)
    with httpx.Client(base_url=operated.url, timeout=120) as other:
        assert other.get(back).status_code == 403
        leave(other)
        stolen = other.get(back)
        assert stolen.status_code == 403
        assert "one to another sign-in" in stolen.text
        assert "id" not in other.cookies
    assert client.get(back).status_code == 303
    again = client.get(back)
    assert again.status_code == 403
    assert "It took too long" in again.text or "it took too long" in again.text


def test_no_network_begins_sign_ins_without_end(
    client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    back = leave(client)
    connection.execute(
        "UPDATE login_attempts SET attempts = %s WHERE network = 'oidc 127.0.0.1'", [MOST_WAYS]
    )
    with httpx.Client(base_url=client.base_url, timeout=120) as other:
        for path in ("/sign-in/oidc?next=/emails", BACK, "/sign-in/oidc/out"):
            refused = other.get(path)
            assert refused.status_code == 429, path
            assert int(refused.headers["retry-after"]) > 0
            assert "Too many sign-ins were begun from this address" in refused.text
    assert signs_in(connection) == []
    steps = connection.execute("SELECT count(*) AS steps FROM sign_in_steps").fetchone()
    assert steps == {"steps": 1}
    # Whoever went there before comes back.
    assert client.get(back).headers["location"] == "/emails"


def test_a_refusal_of_the_provider_is_told(client: httpx.Client, provider: RunningProvider) -> None:
    there = client.get("/sign-in/oidc?next=/emails")
    state = parse_qs(urlsplit(there.headers["location"]).query)["state"][0]
    refused = client.get(BACK, params={"state": state, "error": "access_denied"})
    assert refused.status_code == 403
    assert "it did not let you in" in refused.text
    # The form leads back to where one was.
    assert "next=%2Femails" in refused.text
    mixed_up = client.get("/sign-in/oidc").headers["location"]
    state = parse_qs(urlsplit(mixed_up).query)["state"][0]
    answer = client.get(BACK, params={"state": state, "code": "1", "iss": "https://evil.example"})
    assert "another issuer" in answer.text


def unsigned(claims: dict[str, Any], key: Mapping[str, Any]) -> str:
    return jwt.encode(claims, None, "none")


def by_the_public_key(claims: dict[str, Any], key: Mapping[str, Any]) -> str:
    """As somebody signs who knows it as everybody does."""
    head = {"alg": "HS256", "typ": "JWT", "kid": key.get("kid")}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, claims)
    ]
    mac = hmac.new(key["n"].encode(), b".".join(parts), "sha256").digest()
    return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def by_another_key(claims: dict[str, Any], key: Mapping[str, Any]) -> str:
    other = rsa.generate_private_key(65537, 2048)
    return jwt.encode(claims, other, "RS256", {"kid": key.get("kid")})


def cut(claims: dict[str, Any], key: Mapping[str, Any]) -> str:
    return sign_as_ever(claims, key)[:-20]


@pytest.mark.parametrize("sign", [unsigned, by_the_public_key, by_another_key, cut])
def test_a_token_that_others_could_have_made_is_not_believed(
    client: httpx.Client, provider: RunningProvider, connection: Connection, sign: Any
) -> None:
    provider.sign = sign
    refused = enter(client)
    assert refused.status_code == 403
    assert "ID token" in refused.text
    assert "id" not in client.cookies
    assert "otto" not in people(connection)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"aud": "another"}, "for another client"),
        ({"aud": ["another"]}, "for another client"),
        ({"azp": "another"}, "for another party"),
        ({"nonce": "another"}, "of another sign-in"),
        ({"nonce": None}, "of another sign-in"),
        ({"exp": int(time.time()) - 3_600}, "it is too old"),
        ({"iat": int(time.time()) + 36_000}, "of the future"),
        ({"exp": None}, "lacks one of"),
        ({"sub": ""}, "does not say who"),
    ],
)
def test_a_token_that_says_another_thing_is_not_believed(
    client: httpx.Client, provider: RunningProvider, claims: dict[str, Any], said: str
) -> None:
    def change(of_token: dict[str, Any]) -> None:
        of_token.update(claims)
        for name in [name for name, value in of_token.items() if value is None]:
            del of_token[name]

    provider.change = change
    refused = enter(client)
    assert refused.status_code == 403
    assert said in refused.text
    assert "id" not in client.cookies


def test_clocks_may_differ_a_little(client: httpx.Client, provider: RunningProvider) -> None:
    provider.change = lambda claims: claims.update(
        exp=int(time.time()) - 10, iat=int(time.time()) - 100
    )
    assert enter(client).status_code == 303
    provider.change = lambda claims: claims.update(iat=int(time.time()) + 30)
    assert enter(client).status_code == 303


def test_groups_that_the_token_lacks_are_asked_for(
    client: httpx.Client, provider: RunningProvider, connection: Connection
) -> None:
    provider.change = lambda claims: claims.pop("groups")
    assert enter(client).status_code == 303
    assert people(connection)["otto"] == "operator"
    assert "/userinfo" in [path for path, _ in provider.asked]


def test_one_signs_out_here_and_there(client: httpx.Client, provider: RunningProvider) -> None:
    enter(client)
    page = client.get("/account").text
    token = page.partition('name="token" value="')[2].partition('"')[0]
    out = client.post("/account", data={"token": token, "session": "this"})
    assert out.headers["location"] == "/sign-in?out"
    assert 'href="/sign-in/oidc/out"' in client.get("/sign-in?out").text
    there = urlsplit(client.get("/sign-in/oidc/out").headers["location"])
    assert f"{there.scheme}://{there.netloc}" == provider.issuer
    assert parse_qs(there.query)["post_logout_redirect_uri"] == [f"{client.base_url}/sign-in"]


def test_with_passwords_off_there_is_no_other_way_in(
    operated: Services,
    provider: RunningProvider,
    connection: Connection,
) -> None:
    own = Services(operated.environment["DATABASE_URL"], operated.folder)
    own.environment |= provider.register(own.url + BACK)
    own.environment["MAILROOM_OIDC_SCOPES"] = "openid"
    try:
        own.start_web(MAILROOM_PASSWORDS="false")
        with httpx.Client(base_url=own.url, timeout=120) as client:
            page = client.get("/sign-in").text
            assert "Sign in with OpenID Connect" in page
            assert "password" not in page
            refused = sign_in(client, "olga")
            assert refused.status_code == 403
            assert "passwords are switched off" in refused.json()["detail"]
            form = {"username": "olga", "password": PASSWORD, "token": "x"}
            assert client.post("/sign-in", data=form).status_code != 303
            assert "id" not in client.cookies
            # Nobody is made here, and roles are given here.
            unknown = enter(client)
            assert unknown.status_code == 403
            assert "mailroom user link NAME otto-1" in unknown.text
            linked = own.run("mailroom", "user", "link", "olga", "otto-1")
            assert linked.returncode == 0, linked.stderr
            assert enter(client).status_code == 303
            assert people(connection) == {"ada": "admin", "olga": "operator"}
        doctor = own.run("mailroom", "doctor", "--json").stdout
        found = {each["check"]: each for each in json.loads(doctor)}
        assert found["sign-in"]["is_well"], found["sign-in"]
        own.environment["MAILROOM_OIDC_ISSUER"] = f"{provider.issuer}/other"
        doctor = own.run("mailroom", "doctor", "--json").stdout
        found = {each["check"]: each for each in json.loads(doctor)}
        assert "MAILROOM_OIDC_ISSUER" in found["sign-in"]["explanation"]
    finally:
        own.end()


def test_in_a_browser_by_keyboard(
    browser: Browser, operated: Services, provider: RunningProvider
) -> None:
    with open_page(browser, operated.url) as page:
        page.goto("/emails?q=status:failed")
        page.get_by_role("link", name="Sign in with Example ID").press("Enter")
        expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()
        expect(page.get_by_role("textbox")).to_be_focused()
        page.keyboard.type("otto-1")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{operated.url}/emails?q=status:failed")
        page.get_by_role("button", name="Sign out").press("Enter")
        page.get_by_role("link", name="Sign out of Example ID, too").press("Enter")
        expect(page).to_have_url(re.compile(re.escape(provider.issuer)))
