"""The audit log: each act by each door leaves an entry, and nothing of a customer is in it."""

import asyncio
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import attrs
import click
import httpx
import psycopg
import pytest
from databases import Databases
from support import PASSWORD, Services, create_operators, email, sign_in, signed
from zendesk.account import Account
from zendesk.server import FakeApi, api_in_thread
from zendesk.suspended_api import suspend

from app.api.jobs import JobsController
from app.api.search import Cursor
from app.attachments.store import AttachmentStore
from app.cli.main import main
from app.intake.openapi import WEBHOOK_PATH
from app.main import create_app

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
USERS = "/admin/api/tables/piccolo_user/"
TOKEN = {"Authorization": "Bearer token"}
CUSTOMER = "erika.secret@customer.example"
CHANGES = {"POST", "PUT", "PATCH", "DELETE"}
MADE_UP = Cursor(datetime(2100, 1, 1, tzinfo=UTC), UUID(int=7)).encode()


@attrs.frozen
class World:
    """A web process, somebody who has signed in, and a database to look into."""

    services: Services
    ada: httpx.Client
    connection: Connection
    api: FakeApi

    def email(self, status: str = "failed") -> str:
        sent = signed(email(from_email=CUSTOMER, subject="Rechnung geheim"))
        answer = httpx.post(self.services.url + WEBHOOK_PATH, **sent, timeout=60)
        email_id: str = answer.json()["email_id"]
        self.connection.execute(
            "UPDATE incoming_emails SET processing_status = %s, completed_at = now(),"
            " processing_error = %s, attachment_urls = %s WHERE id = %s",
            [status, f"no {CUSTOMER}", '[{"url": "https://example.com/a.pdf"}]', email_id],
        )
        return email_id

    def refusal(self, **fields: Any) -> str:
        content = email(from_email=CUSTOMER, ticket_id="", **fields)
        answer = httpx.post(self.services.url + WEBHOOK_PATH, **signed(content), timeout=60)
        assert answer.status_code == 400
        return answer.headers["x-request-id"]

    def admissible(self) -> str:
        """A webhook that was refused and passes now."""
        sent = signed(email(from_email=CUSTOMER))
        row = self.connection.execute(
            "INSERT INTO quarantined_webhooks (id, body, reason, headers)"
            " VALUES (gen_random_uuid(), %s, 'signature', %s) RETURNING id",
            [sent["content"], json.dumps(sent["headers"])],
        ).fetchone()
        assert row is not None
        return str(row["id"])

    def suspended(self) -> str:
        suspended_id = suspend(self.api.account, CUSTOMER, "Frage")
        self.connection.execute("INSERT INTO suspended_tickets (id) VALUES (%s)", [suspended_id])
        return str(suspended_id)

    def checked(self, path: str, action: str, row_id: str) -> None:
        self.page(path, action=action, which="checked", id=row_id)

    def page(self, path: str, **form: str) -> None:
        listed = self.ada.get("/lint")
        answer = self.ada.post(path, data={"token": token_on(listed.text), **form})
        assert answer.status_code in (200, 303), answer.text

    def admin(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
        answer = self.ada.request(method, path, json=content)
        assert answer.is_success or answer.status_code == 303, answer.text
        return answer

    def call(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> None:
        url = f"{self.services.url}/api/v1{path}"
        answer = httpx.request(method, url, json=content, headers=TOKEN, timeout=60)
        assert answer.is_success, answer.text

    def run(self, *command: str, expected: int = 0, **environment: str) -> None:
        ended = self.services.run("mailroom", "--as", "kim", *command, **environment)
        assert ended.returncode == expected, ended.stdout + ended.stderr

    def unpaused(self) -> "World":
        self.connection.execute("DELETE FROM processing_pauses")
        return self

    def paused(self) -> "World":
        self.unpaused().connection.execute(
            "INSERT INTO processing_pauses (name, since, who, reason)"
            " VALUES ('all', now(), 'olga', 'x')"
        )
        return self

    def bulk(self, state: str = "running") -> str:
        self.call(
            "POST", "/bulk-actions", {"action": "retry", "ids": [self.email()], "dry_run": False}
        )
        row = self.connection.execute(
            "UPDATE bulk_actions SET state = %s WHERE id ="
            " (SELECT id FROM bulk_actions ORDER BY asked_at DESC LIMIT 1) RETURNING id",
            [state],
        ).fetchone()
        assert row is not None
        return str(row["id"])

    def user(self) -> int:
        row = self.connection.execute(
            "INSERT INTO piccolo_user (username, password, email, active, admin, superuser)"
            " SELECT 'user ' || gen_random_uuid(), password, gen_random_uuid(), true, true, false"
            " FROM piccolo_user WHERE username = 'olga' RETURNING id"
        ).fetchone()
        assert row is not None
        user_id: int = row["id"]
        return user_id


@pytest.fixture(scope="module")
def world(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    url = databases.create(migrated=True)
    services = Services(url, tmp_path_factory.mktemp("audited"))
    with api_in_thread(Account()) as api:
        services.environment |= {
            **api.environment,
            "MAILROOM_SYNC": "json:dumps",
            "MAILROOM_KEEP_COMPLETED_DAYS": "3000",
        }
        create_operators(services)
        services.start_web()
        with (
            httpx.Client(base_url=services.url, timeout=120) as ada,
            psycopg.connect(url, autocommit=True, row_factory=psycopg.rows.dict_row) as connection,
        ):
            sign_in(ada, "ada").raise_for_status()
            yield World(services, ada, connection, api)
        services.end()
    databases.drop(url)


def file_of(world: World) -> None:
    email_id = world.email()
    world.connection.execute(
        "INSERT INTO email_attachments (email, position, url, state)"
        " VALUES (%s, 0, 'https://example.com/a.pdf', 'failed')",
        [email_id],
    )
    world.call("POST", f"/jobs/{email_id}/attachments/0/fetch")


def kept_file(world: World, content_type: str) -> str:
    """An email with a file whose bytes are kept. Returns the email's id."""
    email_id, content = world.email(), b"%PDF"
    sha256 = hashlib.sha256(content).hexdigest()
    source = world.services.folder / "source"
    source.write_bytes(content)
    store = Path(world.services.environment["MAILROOM_HOME"]) / "attachments"
    asyncio.run(AttachmentStore.from_url(store.as_uri()).put(source, sha256))
    world.connection.execute(
        "INSERT INTO email_attachments (email, position, url, state, content_type, size, sha256)"
        " VALUES (%s, 0, 'https://example.com/a', 'kept', %s, %s, %s)",
        [email_id, content_type, len(content), sha256],
    )
    return email_id


def sign_out(world: World) -> None:
    with httpx.Client(base_url=world.services.url, timeout=60) as olga:
        sign_in(olga, "olga").raise_for_status()
        olga.post("/admin/public/logout/")


def leave(world: World) -> None:
    with httpx.Client(base_url=world.services.url, timeout=60) as olga:
        page = olga.get("/sign-in").text
        content = {"username": "olga", "password": PASSWORD, "token": token_on(page)}
        assert olga.post("/sign-in", data=content).status_code == 303
        token = token_on(olga.get("/account").text)
        for session in ("others", "this"):
            answer = olga.post("/account", data={"token": token, "session": session})
            assert answer.status_code == 303


def token_on(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return found[1]


def bulk_by_page(world: World) -> None:
    which = {"which": "checked", "id": world.email()}
    world.page("/bulk", action="retry", key=str(uuid4()), **which)


def own_password(world: World) -> None:
    content = dict.fromkeys(("current_password", "new_password", "confirm_new_password"), PASSWORD)
    with httpx.Client(base_url=world.services.url, timeout=60) as olga:
        sign_in(olga, "olga").raise_for_status()
        assert olga.post("/admin/api/change-password/", json=content).status_code == 303


def guess(world: World) -> None:
    with httpx.Client(base_url=world.services.url, timeout=60) as stranger:
        assert sign_in(stranger, "olga", "guess").status_code == 401


def retry_with_another_secret(world: World) -> None:
    other = "another secret of the tests which is long"
    sent = signed(email(from_email=CUSTOMER), secret=other)
    answer = httpx.post(world.services.url + WEBHOOK_PATH, **sent, timeout=60)
    assert answer.status_code == 401, answer.text
    refused = answer.headers["x-request-id"]
    ended = world.services.run(
        *("mailroom", "quarantine", "retry", refused),
        MAILROOM_AS="kim",
        MAILROOM_WEBHOOK_SECRETS=other,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def receiver(world: World) -> None:
    world.connection.execute("INSERT INTO sync_receivers (name) VALUES ('json:dumps')")
    world.run("sync", "resume")


def new_user(world: World) -> None:
    content = {"username": "otto", "password": PASSWORD, "email": "otto@example.com"}
    world.admin("POST", USERS, {**content, "admin": True, "active": True, "superuser": False})


Scenario: TypeAlias = Callable[[World], object]
NOTHING = "changes nothing that lasts"
LISTED = "only lists or shows"

# Each route and command with the act that its entry names, or why it leaves none. Whoever adds one
# that changes something writes an entry in it by `app.audit.log.write`, and shows it here.
ROUTES: dict[str, list[tuple[str, Scenario]] | str] = {
    f"POST {WEBHOOK_PATH}": "Zendesk calls it",
    "POST /lint": NOTHING,
    "POST /emails/saved": "one's own searches",
    "POST /account/language": "one's own browser keeps it",
    "POST /emails/{email_id:uuid}": [
        ("email.retry", lambda w: w.page(f"/emails/{w.email()}", action="retry")),
        ("email.settle", lambda w: w.page(f"/emails/{w.email()}", action="settle", reason="x")),
        ("email.discard", lambda w: w.page(f"/emails/{w.email()}", action="discard", reason="x")),
        ("file.fetch", lambda w: w.page(f"/emails/{w.email()}", action="fetch")),
        ("email.erase", lambda w: w.page(f"/emails/{w.email()}", action="erase", ticket="35436")),
    ],
    "POST /quarantine": [
        ("quarantine.discard", lambda w: w.checked("/quarantine", "discard", w.refusal())),
        ("quarantine.admit", lambda w: w.checked("/quarantine", "retry", w.admissible())),
    ],
    "POST /quarantine/{refusal_id:uuid}": [
        ("quarantine.discard", lambda w: w.page(f"/quarantine/{w.refusal()}", action="discard")),
        (
            "quarantine.admit",
            lambda w: w.page(
                f"/quarantine/{w.refusal()}",
                action="admit",
                text='{"ticket_id": "7", "from_email": "kim@example.org"}',
            ),
        ),
    ],
    "POST /processing": [
        (
            "processing.pause",
            lambda w: w.unpaused().page("/processing", action="pause", reason="x"),
        ),
        ("processing.resume", lambda w: w.paused().page("/processing", action="resume")),
    ],
    "POST /api/v1/processing/pause": [
        (
            "processing.pause",
            lambda w: w.unpaused().call("POST", "/processing/pause", {"reason": "x"}),
        )
    ],
    "POST /api/v1/processing/resume": [
        ("processing.resume", lambda w: w.paused().call("POST", "/processing/resume"))
    ],
    "POST /bulk": [("bulk.start", bulk_by_page)],
    "POST /bulk/{action_id:uuid}": [
        ("bulk.stop", lambda w: w.page(f"/bulk/{w.bulk()}", do="stop")),
        ("bulk.resume", lambda w: w.page(f"/bulk/{w.bulk('stopped')}", do="resume")),
    ],
    "POST /api/v1/bulk-actions": [
        (
            "bulk.start",
            lambda w: w.call(
                "POST",
                "/bulk-actions",
                {"action": "retry", "ids": [w.email()], "dry_run": False},
            ),
        )
    ],
    "POST /api/v1/bulk-actions/{action_id:uuid}/stop": [
        ("bulk.stop", lambda w: w.call("POST", f"/bulk-actions/{w.bulk()}/stop"))
    ],
    "POST /api/v1/bulk-actions/{action_id:uuid}/resume": [
        ("bulk.resume", lambda w: w.call("POST", f"/bulk-actions/{w.bulk('stopped')}/resume"))
    ],
    "POST /account": [("session.sign_out", leave), ("session.end", leave)],
    "POST /people": [
        (
            "user.role",
            lambda w: w.page("/people", user=str(w.user()), action="role", role="viewer"),
        ),
        ("session.end", lambda w: w.page("/people", user=str(w.user()), action="end")),
    ],
    "POST /sign-in": [("session.sign_in", leave)],
    "POST /sign-in/code": "the tests of the second step show it",
    "POST /account/second-step": "the tests of the second step show it",
    "POST /suspended": [
        ("suspended.recover", lambda w: w.checked("/suspended", "recover", w.suspended())),
        ("suspended.archive", lambda w: w.checked("/suspended", "archive", w.suspended())),
    ],
    "POST /api/v1/jobs/{job_id:uuid}/retry": [
        ("email.retry", lambda w: w.call("POST", f"/jobs/{w.email()}/retry"))
    ],
    "POST /api/v1/jobs/retry": [
        (
            "email.retry",
            lambda w: w.call("POST", "/jobs/retry", {"dry_run": False, "from_email": CUSTOMER}),
        )
    ],
    "DELETE /api/v1/jobs/{job_id:uuid}": [
        ("email.erase", lambda w: w.call("DELETE", f"/jobs/{w.email()}"))
    ],
    "POST /api/v1/jobs/{job_id:uuid}/attachments/{position:int}/fetch": [("file.fetch", file_of)],
    "POST /api/v1/deliveries/reconcile": [
        ("email.reconcile", lambda w: w.call("POST", "/deliveries/reconcile", {"dry_run": False}))
    ],
    "POST /api/v1/erasures": [
        (
            "erasure.ask",
            lambda w: w.call(
                "POST", "/erasures", {"dry_run": False, "sender": "gone@customer.example"}
            ),
        )
    ],
    "POST /api/v1/quarantine/{refusal_id:uuid}/admit": [
        (
            "quarantine.admit",
            lambda w: w.call(
                "POST",
                f"/quarantine/{w.refusal()}/admit",
                {"body": '{"ticket_id": "8", "from_email": "kim@example.org"}'},
            ),
        )
    ],
    "DELETE /api/v1/quarantine/{refusal_id:uuid}": [
        ("quarantine.discard", lambda w: w.call("DELETE", f"/quarantine/{w.refusal()}"))
    ],
}
ADMIN: list[tuple[str, Scenario]] = [
    ("user.create", new_user),
    ("user.change", lambda w: w.admin("PATCH", f"{USERS}{w.user()}/", {"active": False})),
    ("user.delete", lambda w: w.admin("DELETE", f"{USERS}{w.user()}/")),
    ("user.change", own_password),
    ("session.sign_in", guess),
    ("session.sign_in", sign_out),
    ("session.sign_out", sign_out),
    (
        "table.export",
        lambda w: w.admin("GET", "/admin/api/tables/incoming_emails/?__page_size=1000&__page=1"),
    ),
]
EXPORTS: list[tuple[str, Scenario]] = [
    ("audit.export", lambda w: w.admin("GET", "/audit/export")),
    ("email.export", lambda w: w.admin("GET", f"/emails/{w.email()}/download")),
    ("email.export", lambda w: w.admin("GET", f"/emails/{w.email()}/payload")),
    ("audit.export", lambda w: w.call("GET", "/audit")),
    ("audit.export", lambda w: w.call("GET", f"/audit?cursor={MADE_UP}")),
    (
        "file.export",
        lambda w: w.admin("GET", f"/emails/{kept_file(w, 'application/pdf')}/attachments/0"),
    ),
    (
        "file.export",
        lambda w: w.call("GET", f"/jobs/{kept_file(w, 'image/png')}/attachments/0"),
    ),
]
COMMANDS: dict[str, list[tuple[str, Scenario]] | str] = {
    "up": NOTHING,
    "web": NOTHING,
    "worker": NOTHING,
    "migrate": "the test of migrations shows it",
    "send": "it is a webhook",
    "handler run": NOTHING,
    "zendesk setup": [
        (
            "zendesk.set_up",
            lambda w: w.run(
                *("zendesk", "setup", "--print-secret", "--url", w.services.url), expected=1
            ),
        )
    ],
    "zendesk check": NOTHING,
    "lint": NOTHING,
    "text": NOTHING,
    "show": LISTED,
    "receipt": LISTED,
    "size": NOTHING,
    "stuck": LISTED,
    "listen": NOTHING,
    "reconcile": [("email.reconcile", lambda w: w.run("reconcile", "--apply"))],
    "pause": [("processing.pause", lambda w: w.unpaused().run("pause", "the CRM moves"))],
    "resume": [("processing.resume", lambda w: w.paused().run("resume"))],
    "status": LISTED,
    "user list": LISTED,
    "user create": "the tests of people show it",
    "user role": "the tests of people show it",
    "user password": "the tests of people show it",
    "user deactivate": "the tests of people show it",
    "user end-sessions": "the tests of people show it",
    "user reset-second-step": "the tests of the second step show it",
    "user link": "the tests of OpenID Connect show it",
    "bulk start": [
        ("bulk.start", lambda w: w.run("bulk", "start", "retry", "--id", w.email(), "--apply"))
    ],
    "bulk list": LISTED,
    "bulk show": LISTED,
    "bulk stop": [("bulk.stop", lambda w: w.run("bulk", "stop", w.bulk()))],
    "bulk resume": [("bulk.resume", lambda w: w.run("bulk", "resume", w.bulk("stopped")))],
    "quarantine list": LISTED,
    "quarantine show": LISTED,
    "quarantine retry": [("quarantine.admit", retry_with_another_secret)],
    "quarantine discard": [
        ("quarantine.discard", lambda w: w.run("quarantine", "discard", w.refusal()))
    ],
    "quarantine edit": [
        (
            "quarantine.admit",
            lambda w: w.run("quarantine", "edit", w.refusal(), "--file", mended(w)),
        )
    ],
    "quarantine export": [
        (
            "quarantine.export",
            lambda w: w.run("quarantine", "export", w.refusal(), "--folder", folder(w)),
        )
    ],
    "attachments list": LISTED,
    "attachments fetch": [("file.fetch", lambda w: w.run("attachments", "fetch", w.email()))],
    "attachments verify": [("file.fetch", lambda w: w.run("attachments", "verify", "--fetch"))],
    "attachments gc": [("store.clean", lambda w: w.run("attachments", "gc", "--delete"))],
    "attachments move": [
        ("store.move", lambda w: w.run("attachments", "move", "--to", f"file://{folder(w)}"))
    ],
    "sync status": LISTED,
    "sync resume": [("receiver.resume", receiver)],
    "sync cancel": [
        ("delivery.cancel", lambda w: w.run("sync", "cancel", "--apply", MAILROOM_SYNC=""))
    ],
    "prune": [("retention.prune", lambda w: w.run("prune"))],
    "erase": [
        ("erasure.ask", lambda w: w.run("erase", "--ticket", "4711", expected=1)),
        ("email.erase", lambda w: w.run("erase", "--id", w.email())),
    ],
    "erasures": LISTED,
    "erasures export": [("erasure.export", lambda w: w.run("erasures", "export"))],
    "erasures import": [
        ("erasure.import", lambda w: w.run("erasures", "import", nothing_erased(w)))
    ],
    "token create": [("token.create", lambda w: w.run("token", "create", "crm"))],
    "token list": LISTED,
    "token revoke": [
        (
            "token.revoke",
            lambda w: (w.run("token", "create", "old"), w.run("token", "revoke", "old")),
        )
    ],
    "gaps": [
        (
            "gaps.look",
            lambda w: (
                w.run(*("zendesk", "setup", "--print-secret", "--url", w.services.url), expected=1),
                w.run("gaps"),
            ),
        )
    ],
    "backfill": [("gaps.backfill", lambda w: w.run("backfill", "--since", "2026-11-25"))],
    "suspended list": LISTED,
    "suspended show": LISTED,
    "suspended recover": [
        ("suspended.recover", lambda w: w.run("suspended", "recover", str(w.suspended())))
    ],
    "suspended archive": [
        ("suspended.archive", lambda w: w.run("suspended", "archive", str(w.suspended())))
    ],
    "alerts list": LISTED,
    "alerts test": NOTHING,
    "doctor": NOTHING,
    "demo": "it runs on a database of its own",
    "drill": "its emails are made up; that they are erased is written as any erasure",
}


def nothing_erased(world: World) -> str:
    path = world.services.folder / "erasures.jsonl"
    path.write_text(world.services.run("mailroom", "erasures", "export").stdout)
    return str(path)


def mended(world: World) -> str:
    path = world.services.folder / "mended.json"
    path.write_text('{"ticket_id": "9", "from_email": "kim@example.org"}')
    return str(path)


def folder(world: World) -> str:
    return str(world.services.folder / "exported")


def commands_of(command: click.Command, name: str = "") -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield name
        return
    with click.Context(command) as context:
        for one in command.list_commands(context):
            below = command.get_command(context, one)
            assert below is not None
            yield from commands_of(below, f"{name} {one}".strip())


@pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")
def test_every_route_and_command_that_changes_something_is_known_here() -> None:
    routes = {
        f"{method} {route.path}"
        for route in create_app().routes
        for method in getattr(route, "methods", ()) & CHANGES
        if route.path.startswith("/") and not route.path.startswith("/admin")
    }
    assert JobsController.path + "/retry" in str(routes)
    assert routes == set(ROUTES)
    assert {*commands_of(main), "erasures"} == set(COMMANDS)


def numbered(table: Mapping[str, list[tuple[str, Scenario]] | str]) -> list[Any]:
    return [
        pytest.param(act, scenario, id=f"{name}: {act}")
        for name, acts in table.items()
        if not isinstance(acts, str)
        for act, scenario in acts
    ]


def entries_after(world: World, act: Scenario) -> list[dict[str, Any]]:
    world.connection.execute("SET mailroom.prunes_audit = 'on'")
    world.connection.execute("DELETE FROM audit_entries")
    act(world)
    return world.connection.execute("SELECT * FROM audit_entries ORDER BY at").fetchall()


@pytest.mark.parametrize(
    ("act", "scenario"),
    [*numbered(ROUTES), *numbered({"admin": ADMIN}), *numbered({"exports": EXPORTS})],
)
def test_each_act_by_the_web_leaves_an_entry(world: World, act: str, scenario: Scenario) -> None:
    found = [entry for entry in entries_after(world, scenario) if entry["act"] == act]
    assert found, act
    for entry in found:
        assert entry["actor"] in ("ada", "olga", "MAILROOM_API_TOKEN", "")
        assert (entry["actor"] == "") == (entry["result"] == "refused")
        assert entry["address"] == "127.0.0.1"
        assert entry["door"] in ("page", "admin", "api")
        assert entry["request_id"] is not None


@pytest.mark.parametrize(("act", "scenario"), numbered(COMMANDS))
def test_each_act_by_a_command_leaves_an_entry(world: World, act: str, scenario: Scenario) -> None:
    found = [entry for entry in entries_after(world, scenario) if entry["act"] == act]
    assert found, act
    for entry in found:
        assert entry["actor"] == "kim"
        assert "@" in entry["address"]
        assert entry["door"] == "command"


def test_nothing_of_a_customer_is_in_it(world: World) -> None:
    def everything(world: World) -> None:
        for path in ("/jobs/retry", "/erasures"):
            who = {"from_email": CUSTOMER} if "jobs" in path else {"sender": CUSTOMER}
            world.email()
            world.call("POST", path, {"dry_run": False, **who})
        world.call("POST", "/jobs/retry", {"dry_run": False, "error": CUSTOMER})
        world.page(f"/emails/{world.email()}", action="settle", reason=f"wrote to {CUSTOMER}")
        with httpx.Client(base_url=world.services.url, timeout=60) as stranger:
            sign_in(stranger, PASSWORD)

    entries = entries_after(world, everything)
    assert len(entries) >= 7
    assert "customer.example" not in str(entries)
    assert PASSWORD not in str(entries)


def test_a_picture_that_its_page_shows_is_not_taken_along(world: World) -> None:
    def exports(content_type: str, shown_as: str) -> int:
        path = f"/emails/{kept_file(world, content_type)}/attachments/0"
        found = entries_after(
            world,
            lambda w: w.ada.get(path, headers={"Sec-Fetch-Dest": shown_as}).raise_for_status(),
        )
        return len([entry for entry in found if entry["act"] == "file.export"])

    assert exports("image/png", "image") == 0
    assert exports("image/png", "document") == 1
    assert exports("application/pdf", "image") == 1


def test_entries_are_neither_changed_nor_deleted(world: World) -> None:
    world.email()
    entries_after(world, lambda world: world.admin("GET", "/audit/export"))
    for statement in ("UPDATE audit_entries SET actor = 'x'", "DELETE FROM audit_entries"):
        with (
            psycopg.connect(world.services.environment["DATABASE_URL"]) as connection,
            pytest.raises(psycopg.errors.RaiseException, match="neither changed nor deleted"),
        ):
            connection.execute(statement)


def test_it_is_searched_and_exported(world: World) -> None:
    retried = world.email()

    def act(world: World) -> None:
        world.page(f"/emails/{retried}", action="retry")
        world.call("POST", f"/jobs/{world.email()}/retry")

    entries_after(world, act)
    for text, found in (
        ("", {"ada", "MAILROOM_API_TOKEN"}),
        ("who:ada", {"ada"}),
        ("by:api", {"MAILROOM_API_TOKEN"}),
        (f"on:{retried}", {"ada"}),
        ("what:email.retry result:done by:page", {"ada"}),
        ("retry api_tok", {"MAILROOM_API_TOKEN"}),
        ("at:2001-01-01", set()),
        ("result:refused", set()),
    ):
        page = world.ada.get("/audit", params={"q": text})
        assert set(re.findall(r"<td>(ada|MAILROOM_API_TOKEN)<br>", page.text)) == found, text
    assert "there is no colour: to search by" in world.ada.get("/audit?q=colour:red").text
    exported = world.ada.get("/audit/export", params={"q": "what:email.retry"})
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [row["actor"] for row in rows] == ["MAILROOM_API_TOKEN", "ada"]
    url = f"{world.services.url}/api/v1/audit"
    first = httpx.get(url, headers=TOKEN, params={"act": "email.retry", "limit": 1}).json()
    rest = httpx.get(
        url, headers=TOKEN, params={"act": "email.retry", "cursor": first["next_cursor"]}
    ).json()
    assert [one["actor"] for one in first["items"] + rest["items"]] == [
        row["actor"] for row in rows
    ]
    assert rest["next_cursor"] is None
    assert httpx.get(url).status_code == 401
    with httpx.Client(base_url=world.services.url, timeout=60) as olga:
        sign_in(olga, "olga").raise_for_status()
        assert olga.get("/audit").status_code == 403
        assert olga.get("/audit/export").status_code == 403


def test_a_superuser_cannot_change_the_id_of_a_user(world: World) -> None:
    user_id = world.user()
    answer = world.ada.patch(f"{USERS}{user_id}/", json={"id": 999_999})
    assert answer.status_code == 400, answer.text
    assert world.ada.patch(f"{USERS}{user_id}/", json={"id": user_id, "active": True}).is_success
