"""Who may do what, and how they sign in: roles, the sign-in page, sessions."""

import re
from collections.abc import Iterator
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, expect
from support import PASSWORD, Services, create_operators, email, open_page, sign_in, signed

from app.desk.return_paths import safe_path
from app.intake.openapi import WEBHOOK_PATH
from app.main import create_app

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
ROLES = ("viewer", "operator", "admin")
REFUSED = """
INSERT INTO quarantined_webhooks (id, body, reason, detail, is_signed, remote_address)
VALUES (gen_random_uuid(), '{}', 'invalid', 'from_email', true, '192.0.2.1')
"""
FAILED_FILE = """
INSERT INTO email_attachments (email, position, url, state, reason, ended_at)
VALUES (gen_random_uuid(), 0, 'https://example.com/1', 'failed', 'gone', now())
"""
# The least role of each page and form of the desk.
LEAST = {
    "GET /": "viewer",
    "GET /overview/figures": "viewer",
    "GET /emails": "viewer",
    "GET /emails/completions": "viewer",
    "POST /emails/saved": "viewer",
    "GET /emails/{email_id:uuid}/download": "viewer",
    "GET /emails/{email_id:uuid}/payload": "viewer",
    "GET /emails/{email_id:uuid}": "viewer",
    "GET /emails/{email_id:uuid}/html": "viewer",
    "GET /emails/{email_id:uuid}/attachments/{position:int}": "viewer",
    "POST /emails/{email_id:uuid}": "operator",
    "GET /quarantine": "viewer",
    "GET /quarantine/new": "viewer",
    "POST /quarantine": "operator",
    "GET /deliveries": "viewer",
    "GET /files": "viewer",
    "GET /workers": "viewer",
    "GET /quarantine/{refusal_id:uuid}": "viewer",
    "POST /quarantine/{refusal_id:uuid}": "operator",
    "GET /suspended": "viewer",
    "GET /suspended/new": "viewer",
    "POST /suspended": "operator",
    "POST /processing": "operator",
    "GET /lint": "viewer",
    "POST /lint": "viewer",
    "GET /bulk": "viewer",
    "GET /bulk/new": "viewer",
    "POST /bulk": "operator",
    "GET /bulk/{action_id:uuid}": "viewer",
    "POST /bulk/{action_id:uuid}": "operator",
    "GET /live": "viewer",
    "GET /account": "viewer",
    "POST /account": "viewer",
    "POST /account/language": "viewer",
    "GET /rows/{table:str}": "viewer",
    "GET /people": "admin",
    "POST /people": "admin",
    "GET /audit": "admin",
    "GET /audit/export": "admin",
    "GET /sign-in": "nobody",
    "POST /sign-in": "nobody",
    "GET /sign-in/code": "nobody",
    "POST /sign-in/code": "nobody",
    "GET /sign-in/oidc": "nobody",
    "GET /sign-in/oidc/back": "nobody",
    "GET /sign-in/oidc/out": "nobody",
    "GET /account/second-step": "viewer",
    "POST /account/second-step": "viewer",
}


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def desk(web: Services, connection: Connection) -> Services:
    """With vera, who is a viewer, the operator olga and the administrator ada."""
    create_operators(web)
    connection.execute(
        "WITH made AS (INSERT INTO piccolo_user (username, password, email, active, admin)"
        " SELECT 'vera', password, 'vera@example.com', true, true FROM piccolo_user"
        " WHERE username = 'olga' RETURNING id)"
        " INSERT INTO operator_accounts (user_id, role) SELECT id, 'viewer' FROM made"
    )
    return web


@pytest.fixture
def client(desk: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=desk.url, timeout=120) as client:
        yield client


def enter(
    client: httpx.Client, name: str, password: str = PASSWORD, back: str = "/"
) -> httpx.Response:
    """Sign in by the page."""
    page = client.get("/sign-in", params={"next": back})
    content = {"username": name, "password": password, "next": back, "token": token_on(page.text)}
    return client.post("/sign-in", data=content)


def token_on(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return found[1]


def failed_email(services: Services, connection: Connection) -> str:
    answer = httpx.post(
        services.url + WEBHOOK_PATH, **signed(email(body_text="Geheim")), timeout=60
    )
    email_id: str = answer.json()["email_id"]
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    return email_id


@pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")
def test_the_least_role_of_every_page_is_known() -> None:
    pages = {
        f"{method} {route.path}"
        for route in create_app().routes
        for method in getattr(route, "methods", ()) & {"GET", "POST", "PUT", "PATCH", "DELETE"}
        if not route.path.startswith(("/admin", "/api", "/schema", "/health", "/metrics"))
        and not route.path.startswith("/overview/files")
    }
    assert pages == set(LEAST)


@pytest.mark.parametrize("role", ROLES)
def test_each_page_opens_to_its_role_and_those_above(
    desk: Services, client: httpx.Client, connection: Connection, role: str
) -> None:
    email_id = failed_email(desk, connection)
    enter(client, {"viewer": "vera", "operator": "olga", "admin": "ada"}[role])
    token = token_on(client.get("/lint").text)
    for route, least in LEAST.items():
        method, path = route.split()
        others = ("/account", "/account/language", "/live")
        if path in others or path.startswith("/sign-in"):
            continue
        path = re.sub(r"\{email_id:uuid\}", email_id, path)
        path = re.sub(r"\{\w+:uuid\}", "01890000-0000-7000-8000-000000000000", path)
        path = re.sub(r"\{\w+:int\}", "7", path)
        answer = client.request(method, path, data={"token": token} if method == "POST" else None)
        may = ROLES.index(role) >= ROLES.index(least)
        assert (answer.status_code != 403) == may, (route, answer.status_code)
        assert answer.status_code != 303, route
    page = client.get(f"/emails/{email_id}").text
    assert ('value="retry"' in page) == (role != "viewer")
    assert ('value="erase"' in page) == (role != "viewer")
    connection.execute(REFUSED)
    connection.execute(FAILED_FILE)
    for path in ("/emails", "/quarantine", "/files"):
        rows = client.get(path).text
        assert 'id="rows"' in rows
        assert ('type="checkbox"' in rows) == (role != "viewer"), path
        assert ("bulk-form" in rows) == (role != "viewer"), path
    assert "Geheim" in page
    refused = connection.execute(
        "SELECT actor, object FROM audit_entries WHERE act = 'role.refused'"
    ).fetchall()
    assert bool(refused) == (role != "admin")


def test_a_reason_that_cannot_be_kept_is_told(
    desk: Services, client: httpx.Client, connection: Connection
) -> None:
    email_id = failed_email(desk, connection)
    enter(client, "olga")
    token = token_on(client.get("/lint").text)
    form = {"token": token, "action": "settle", "reason": "done\0"}
    answer = client.post(f"/emails/{email_id}", data=form)
    assert answer.status_code == 200
    assert "a character that cannot be kept" in answer.text


def test_a_viewer_changes_nothing_in_piccolo_admin(
    desk: Services, client: httpx.Client, connection: Connection
) -> None:
    email_id = failed_email(desk, connection)
    sign_in(client, "vera").raise_for_status()
    tables = client.get("/admin/api/tables/").json()
    assert {"email_attachments", "incoming_emails", "workers"} <= set(tables)
    assert not {"piccolo_user", "operator_accounts", "audit_entries", "api_tokens"} & set(tables)
    assert client.get(f"/admin/api/tables/incoming_emails/{email_id}/").is_success
    for table in ("piccolo_user", "operator_accounts", *tables):
        for method, row in (("POST", ""), ("PATCH", "1/"), ("DELETE", "1/")):
            answer = client.request(method, f"/admin/api/tables/{table}/{row}", json={"role": "x"})
            assert answer.status_code in (403, 404, 405), (table, method)
    rows = connection.execute("SELECT processing_status FROM incoming_emails").fetchall()
    assert [row["processing_status"] for row in rows] == ["failed"]


def test_by_setting_a_viewer_sees_no_bodies(
    services: Services, connection: Connection, desk: Services
) -> None:
    email_id = failed_email(desk, connection)
    connection.execute(
        "UPDATE incoming_emails SET processing_status = 'completed', completed_at = now(),"
        """ extracted_data = '{"order": "4711"}'"""
    )
    bulk_id = uuid4()
    connection.execute(
        "INSERT INTO bulk_actions (id, action, filter, asked_by, total)"
        " VALUES (%s, 'retry', 'handler-result.order:4712', 'olga', 1)",
        [bulk_id],
    )
    own = Services(services.environment["DATABASE_URL"], services.folder)
    try:
        own.start_web(MAILROOM_VIEWERS_SEE_BODIES="false")
        for name, sees in (("vera", False), ("olga", True)):
            with httpx.Client(base_url=own.url, timeout=120) as client:
                enter(client, name)
                page = client.get(f"/emails/{email_id}")
                assert ("Geheim" in page.text) == sees
                assert (client.get(f"/emails/{email_id}/html").status_code == 200) == sees
                for path in ("download", "payload"):
                    answer = client.get(f"/emails/{email_id}/{path}")
                    assert (answer.status_code == 200) == sees, path
                download = client.get(f"/emails/{email_id}/attachments/0")
                assert (download.status_code == 403) != sees
                row = client.get(f"/admin/api/tables/incoming_emails/{email_id}/")
                assert row.is_success == sees
                # So its page leads to none.
                assert (f"/admin/#/incoming_emails/{email_id}/" in page.text) == sees
                offered = client.get("/emails/completions").json()
                assert ("handler-result.order:" in offered) == sees
                asked = {"q": "handler-result.order:4711"}
                assert (email_id in client.get("/emails", params=asked).text) == sees
                bulk = {"which": "all", "action": "erase", **asked}
                assert (email_id in client.get("/bulk/new", params=bulk).text) == sees
                for path in ("/bulk", f"/bulk/{bulk_id}"):
                    page = client.get(path)
                    assert ("4712" in page.text) == sees, path
                    assert ("(not shown)" in page.text) != sees, path
                rows = client.get("/admin/api/tables/bulk_actions/")
                assert ("4712" in rows.text) == sees
    finally:
        own.end()
    refused = connection.execute(
        "SELECT actor, object, result FROM audit_entries WHERE act = 'role.refused' ORDER BY at"
    ).fetchall()
    assert [(one["actor"], one["object"], one["result"]) for one in refused] == [
        ("vera", f"/emails/{email_id}/{path}", "refused")
        for path in ("html", "download", "payload", "attachments/0")
    ]


def test_users_of_before_stay_what_they_were(desk: Services, connection: Connection) -> None:
    listed = desk.run("mailroom", "user", "list").stdout.splitlines()
    assert [line.split("  ")[:2] for line in listed] == [
        ["ada", "admin"], ["olga", "operator"], ["vera", "viewer"]
    ]  # fmt: skip


def test_users_are_made_and_changed_by_commands(
    desk: Services, client: httpx.Client, connection: Connection
) -> None:
    make = ("mailroom", "user", "create", "otto", "--email", "otto@example.com", "--role", "viewer")
    assert desk.run(*make, stdin=b"short\n").returncode == 1
    made = desk.run(*make, stdin=f"{PASSWORD}\n".encode())
    assert made.returncode == 0, made.stderr
    assert "already" in desk.run(*make, stdin=f"{PASSWORD}\n".encode()).stderr
    assert enter(client, "otto").status_code == 303
    assert client.get("/people").status_code == 403
    assert desk.run("mailroom", "user", "role", "otto", "admin").returncode == 0
    assert client.get("/people").status_code == 200
    assert desk.run("mailroom", "user", "end-sessions", "otto").returncode == 0
    assert client.get("/people").status_code == 303
    changed = desk.run("mailroom", "user", "password", "otto", stdin=b"another password\n")
    assert changed.returncode == 0, changed.stderr
    assert enter(client, "otto").status_code == 401
    assert enter(client, "otto", "another password").status_code == 303
    assert desk.run("mailroom", "user", "deactivate", "otto").returncode == 0
    assert client.get("/").status_code == 303
    assert enter(client, "otto", "another password").status_code == 401
    assert (
        "there is no user nobody" in desk.run("mailroom", "user", "role", "nobody", "admin").stderr
    )
    acts = connection.execute(
        "SELECT act FROM audit_entries WHERE door = 'command' ORDER BY at"
    ).fetchall()
    assert [entry["act"] for entry in acts] == [
        *("user.create", "user.role", "session.end", "user.change", "user.change")
    ]


def test_an_administrator_gives_roles_and_ends_sessions(
    desk: Services, client: httpx.Client, connection: Connection
) -> None:
    enter(client, "ada")
    ids = {
        row["username"]: str(row["id"])
        for row in connection.execute("SELECT id, username FROM piccolo_user").fetchall()
    }
    page = client.get("/people")
    token = token_on(page.text)
    with httpx.Client(base_url=desk.url, timeout=120) as olga:
        enter(olga, "olga")

        def change(**form: str) -> int:
            return client.post("/people", data={"token": token, **form}).status_code

        assert change(user=ids["olga"], action="role", role="admin") == 303
        assert olga.get("/audit").status_code == 200
        assert change(user=ids["olga"], action="role", role="viewer") == 303
        assert olga.get("/audit").status_code == 403
        assert change(user=ids["ada"], action="role", role="viewer") == 409
        assert change(user=ids["ada"], action="role", role="root") == 400
        assert change(user="999999", action="role", role="viewer") == 404
        assert change(user="x", action="end") == 400
        assert (
            client.post("/people", data={"user": ids["olga"], "action": "end"}).status_code == 403
        )
        assert olga.get("/").status_code == 200
        assert change(user=ids["olga"], action="end") == 303
        assert olga.get("/").status_code == 303


def test_the_last_administrator_is_kept_by_every_door(
    desk: Services, client: httpx.Client, connection: Connection
) -> None:
    sign_in(client, "ada").raise_for_status()
    row = connection.execute("SELECT id FROM piccolo_user WHERE username = 'ada'").fetchone()
    assert row is not None
    user = f"/admin/api/tables/piccolo_user/{row['id']}/"
    said = "nobody else is an administrator who may sign in: make somebody one first"
    form = {"token": token_on(client.get("/people").text), "user": str(row["id"])}
    answers = [
        client.post("/people", data={**form, "action": "role", "role": "operator"}),
        client.patch(user, json={"superuser": False}),
        client.patch(user, json={"active": False}),
        client.delete(user),
    ]
    assert [answer.status_code for answer in answers] == [409, 422, 422, 422]
    assert all(said in answer.text for answer in answers)
    for command in (("role", "ada", "viewer"), ("deactivate", "ada")):
        ended = desk.run("mailroom", "user", *command)
        assert ended.returncode == 1
        assert said in ended.stderr
    refused = connection.execute(
        "SELECT act FROM audit_entries WHERE result = 'refused' ORDER BY at"
    ).fetchall()
    assert [entry["act"] for entry in refused] == ["user.change", "user.change", "user.delete"]
    assert client.get("/people").status_code == 200


def test_sessions_are_listed_and_ended_and_are_new_with_each_sign_in(
    desk: Services, client: httpx.Client, connection: Connection
) -> None:
    client.cookies.set("id", "chosen-by-somebody-else", domain="127.0.0.1")
    answer = enter(client, "olga")
    assert answer.status_code == 303
    cookie = answer.headers.get_list("set-cookie")[0]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    first = client.cookies["id"]
    assert first != "chosen-by-somebody-else"
    with httpx.Client(base_url=desk.url, timeout=120) as other:
        enter(other, "olga")
        page = client.get("/account").text
        assert page.count(">End</button>") == 1
        assert "this one" in page
        data = {"token": token_on(page), "session": "others"}
        assert client.post("/account", data=data).status_code == 303
        assert other.get("/").status_code == 303
        assert client.get("/").status_code == 200
        enter(other, "ada")
        strange = connection.execute(
            "SELECT sessions.id FROM sessions JOIN piccolo_user ON user_id = piccolo_user.id"
            " WHERE username = 'ada'"
        ).fetchone()
        assert strange is not None
        data["session"] = str(strange["id"])
        assert client.post("/account", data=data).status_code == 303
        assert other.get("/").status_code == 200
    assert client.post("/account", data={"session": "this"}).status_code == 403
    out = client.post("/account", data={**data, "session": "this"})
    assert out.headers["location"] == "/sign-in"
    client.cookies.set("id", first, domain="127.0.0.1")
    assert client.get("/").status_code == 303


def test_who_opens_pages_stays_signed_in(client: httpx.Client, connection: Connection) -> None:
    enter(client, "olga")
    connection.execute("UPDATE sessions SET expiry_date = expiry_date - interval '50 minutes'")

    def end() -> Any:
        return connection.execute("SELECT expiry_date FROM sessions").fetchone()

    before = end()
    # As a page that keeps itself up to date asks.
    assert client.get("/emails", headers={"Sec-Fetch-Mode": "cors"}).is_success
    assert end() == before
    assert client.get("/emails", headers={"Sec-Fetch-Mode": "navigate"}).is_success
    assert end()["expiry_date"] > before["expiry_date"]


@pytest.mark.parametrize(
    ("asked", "led_to"),
    [
        ("/emails?q=status%3Afailed", "/emails?q=status%3Afailed"),
        ("/admin/", "/admin/"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/%5Cevil.example/..", "/%5Cevil.example/.."),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        ("/a\\..//evil.example", "/"),
        ("/ä", "/"),
        ("/" + "x" * 3_000, "/"),
    ],
)
def test_one_comes_back_to_paths_of_ours_alone(asked: str, led_to: str) -> None:
    assert safe_path(asked) == led_to


def test_who_was_signed_out_comes_back_to_where_they_were(client: httpx.Client) -> None:
    sent = client.get("/emails?q=status%3Afailed&after=")
    assert sent.headers["location"] == "/sign-in?next=%2Femails%3Fq%3Dstatus%253Afailed%26after%3D"
    assert (
        'value="/emails?q=status%3Afailed&amp;after="' in client.get(sent.headers["location"]).text
    )
    back = enter(client, "olga", back="/emails?q=status%3Afailed&after=")
    assert back.headers["location"] == "/emails?q=status%3Afailed&after="
    assert client.get("/sign-in?next=//evil.example").headers["location"] == "/"


def test_a_form_of_elsewhere_signs_nobody_in(client: httpx.Client) -> None:
    token = token_on(client.get("/sign-in").text)
    content = {"username": "olga", "password": PASSWORD, "token": token}
    client.cookies.clear()
    assert "id" not in client.post("/sign-in", data=content).cookies
    # What anybody can work out of a cookie that is missing.
    client.cookies["sign_in"] = ""
    assert "id" not in client.post("/sign-in", data=content).cookies
    client.cookies["sign_in"] = "another"
    answer = client.post("/sign-in", data=content)
    assert "id" not in answer.cookies
    assert "The form was too old" in answer.text


def test_nobody_learns_who_exists(client: httpx.Client, connection: Connection) -> None:
    connection.execute("UPDATE piccolo_user SET active = false WHERE username = 'vera'")
    pages = set()
    for name, password in (("olga", "guess"), ("nobody", PASSWORD), ("vera", PASSWORD)):
        answer = enter(client, name, password)
        assert answer.status_code == 401
        assert "id" not in answer.cookies
        pages.add(answer.text)
    assert len(pages) == 1
    entries = connection.execute("SELECT object FROM audit_entries ORDER BY at").fetchall()
    assert [entry["object"] for entry in entries] == ["olga", None, "vera"]


def test_too_many_tries_are_told_on_the_page(client: httpx.Client) -> None:
    client.headers["X-Forwarded-For"] = "192.0.2.77"
    answers = [enter(client, "olga", "guess") for _ in range(21)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 300
    assert "Too many passwords were tried" in answers[-1].text


def test_names_that_nobody_can_have_count_as_tries(
    client: httpx.Client, connection: Connection
) -> None:
    client.headers["X-Forwarded-For"] = "192.0.2.78"
    names = ["ol\0ga", *["x" * 200] * 20]
    assert [enter(client, name, "guess").status_code for name in names] == [401] * 20 + [429]
    entries = connection.execute("SELECT count(*) AS written FROM audit_entries").fetchone()
    assert entries == {"written": 20}


def test_the_page_in_a_browser(browser: Browser, desk: Services) -> None:
    with open_page(browser, desk.url, timezone_id="Asia/Tokyo") as page:
        page.goto("/emails?q=status:failed")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/emails?q=status:failed")
        page.get_by_role("link", name="People").click()
        expect(page.get_by_role("cell", name="ada (you)")).to_be_visible()
        page.get_by_role("link", name="Audit log").click()
        expect(page.get_by_role("cell", name="session.sign_in").first).to_be_visible()
        expect(page.get_by_text("Times are Asia/Tokyo.")).to_be_visible()
        page.get_by_role("link", name="ada", exact=True).first.click()
        expect(page.get_by_text("this one")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Password")).to_be_visible()
