"""Which tables Piccolo Admin has, who sees them, and that they are only looked at."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from piccolo.columns import JSON
from piccolo.columns.base import Column
from piccolo.table import Table
from psycopg import sql
from support import Services, create_operators, sign_in

from app.desk.admin_tables import tables_of
from app.models.operator_account import Role
from app.piccolo_app import APP_CONFIG

Connection = psycopg.Connection[dict[str, Any]]

# What is old may be cleared away at any moment.
MOMENT = datetime.now(UTC)
TABLES = "/admin/api/tables/"

LEFT_OUT = {
    "sign_in_steps": "its key is a hash of a browser's cookie, and it has secrets of OIDC",
    "operator_identities": "who somebody is at an OIDC provider: made by sign-ins and a command",
    "webhook_secret_uses": "its key is a hash of a signing secret, on which a guess can be tried",
    "throughput": "its key is a time, by which Piccolo opens no row; the overview draws it",
    "email_hours": "its key is a time, by which Piccolo opens no row; it is for alarms",
    "quarantine_drops": "its key is a day, by which Piccolo opens no row; the overview tells it",
}
HIDDEN = {
    "api_tokens": "token_hash",
    "erasures": "criterion_hash",
    "quarantined_webhooks": "body",
    "search_entries": "words",
    "waiting_attachments": "attachment",
}
OF_ADMINS = {
    "api_tokens",
    "audit_entries",
    "login_attempts",
    "operator_accounts",
    "piccolo_user",
    "saved_searches",
}
# Of the rows that `put_a_row` makes.
ONE = "00000000-0000-0000-0000-000000000001"
AT_THE_DESK = {
    "incoming_emails": f"/emails/{ONE}",
    "email_attachments": f"/emails/{ONE}#files",
    "email_events": f"/emails/{ONE}#happened",
    "search_entries": f"/emails/{ONE}",
    "bulk_actions": f"/bulk/{ONE}",
    "bulk_action_emails": f"/bulk/{ONE}",
    "quarantined_webhooks": f"/quarantine/{ONE}",
    "suspended_tickets": "/suspended?q=id%3A1",
    "sync_events": f"/emails/{ONE}",
    "sync_receivers": "/deliveries",
    "waiting_attachments": "/emails?q=ticket%3A1",
    "zendesk_erasures": "/emails?q=ticket%3A1",
    "zendesk_tickets_in_question": "/emails?q=ticket%3A1",
    "zendesk_unseen_tickets": "/emails?q=ticket%3A1",
    "zendesk_invocations": "/",
    "zendesk_cursors": "/",
    "zendesk_oddities": "/",
    "zendesk_ranges": "/",
    "canaries": "/",
    "alarms": "/",
    "processing_pauses": "/",
    "workers": "/workers",
    "chores": "/workers",
    "audit_entries": f"/audit?q=what%3A1+at%3A{MOMENT:%Y-%m-%dT%H%%3A%M}",
    "saved_searches": "/emails?q=1",
    "operator_accounts": "/people#user-1",
}
WITHOUT_PAGE = {
    "search_marks": "how far the index of words is",
    "erasures": "what an erasure did is told by the API and by commands",
    "tombstones": "what is there no longer has no page",
    "attachment_erasures": "bytes that are about to be removed",
    "retention_marks": "how far retention is",
    "alarm_notices": "who was told of an alarm",
    "api_tokens": "made and listed by commands",
    "login_attempts": "counts of a network",
}
EDITABLE = {"operator_accounts", "piccolo_user"}

SAMPLES: dict[type, Any] = {
    str: "1",
    int: 1,
    UUID: UUID(int=1),
    datetime: MOMENT,
    bool: False,
    bytes: b"\xff\x00",
}


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


def sample(column: Column) -> Any:
    if isinstance(column, JSON):
        return '{"a": 1}'
    if column._meta.choices is not None and isinstance(column._meta.choices, type):
        return next(iter(column._meta.choices)).value
    default = column._meta.params.get("default")
    return default if isinstance(default, str) and default else SAMPLES[column.value_type]


def put_a_row(connection: Connection, table: type[Table]) -> None:
    """With all that cannot be null, and what is hidden."""
    hidden = HIDDEN.get(table._meta.tablename)
    values = {
        column._meta.name: sample(column)
        for column in table._meta.columns
        if not column._meta.null or column._meta.name == hidden
    }
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        sql.Identifier(table._meta.tablename),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() * len(values)),
    )
    connection.execute(statement, list(values.values()))


def test_every_table_is_there_or_left_out_for_a_reason() -> None:
    ours = {table._meta.tablename for table in APP_CONFIG.table_classes}
    shown = [
        config.table_class._meta.tablename for config in tables_of(Role.ADMIN, sees_bodies=True)
    ]
    assert len(shown) == len(set(shown))
    assert set(shown) & set(LEFT_OUT) == set()
    assert {*shown, *LEFT_OUT} == {*ours, "piccolo_user"}


def test_every_table_leads_to_the_desk_or_has_no_page_for_a_reason() -> None:
    shown = {
        config.table_class._meta.tablename for config in tables_of(Role.ADMIN, sees_bodies=True)
    }
    assert set(AT_THE_DESK) & set(WITHOUT_PAGE) == set()
    assert {*AT_THE_DESK, *WITHOUT_PAGE, "piccolo_user"} == shown


def test_each_role_has_its_tables(web: Services) -> None:
    create_operators(web)
    ours = {table._meta.tablename for table in APP_CONFIG.table_classes} - set(LEFT_OUT)
    with httpx.Client(base_url=web.url) as olga, httpx.Client(base_url=web.url) as ada:
        sign_in(olga, "olga").raise_for_status()
        sign_in(ada, "ada").raise_for_status()
        assert set(olga.get(TABLES).json()) == ours - OF_ADMINS
        assert set(ada.get(TABLES).json()) == ours | OF_ADMINS
        grouped = ada.get(f"{TABLES}grouped/").json()
        assert grouped["ungrouped"] == []
        for name in OF_ADMINS:
            assert olga.get(f"{TABLES}{name}/").status_code == 404, name
        for name in LEFT_OUT:
            assert ada.get(f"{TABLES}{name}/").status_code == 404, name


def lead_to_the_desk(ada: httpx.Client, name: str, key: Any) -> None:
    """From a row to its page."""
    way = ada.get(f"/rows/{name}", params={"key": key})
    if name in WITHOUT_PAGE:
        assert way.status_code == 404, name
        return
    assert (way.status_code, way.headers["location"]) == (303, AT_THE_DESK[name]), way.text
    for wrong in ("x", "-1", str(2**70), "a\0b", str(UUID(int=2))):
        if wrong != str(key):
            assert ada.get(f"/rows/{name}", params={"key": wrong}).status_code == 404, (name, wrong)


def test_rows_are_shown_without_secrets_and_changed_by_nobody(
    web: Services, connection: Connection
) -> None:
    create_operators(web)
    tables = [
        table
        for table in APP_CONFIG.table_classes
        if table._meta.tablename not in {*LEFT_OUT, *EDITABLE}
    ]
    for table in tables:
        put_a_row(connection, table)
    with httpx.Client(base_url=web.url) as ada:
        sign_in(ada, "ada").raise_for_status()
        for table in tables:
            name, key = table._meta.tablename, table._meta.primary_key._meta.name
            path = f"{TABLES}{name}/"
            schema = ada.get(f"{path}schema/").raise_for_status().json()
            order = ",".join(
                f"{'' if by['ascending'] else '-'}{by['column']}"
                for by in schema["extra"]["order_by"]
            )
            rows = ada.get(path, params={"__order": order}).raise_for_status().json()["rows"]
            assert ada.get(f"{path}count/").raise_for_status().json()["count"] >= 1, name
            ada.get(f"{path}ids/").raise_for_status()
            row = f"{path}{rows[0][key]}/"
            single = ada.get(row)
            # The newest entry tells that ada has signed in.
            lead_to_the_desk(ada, name, ONE if name == "audit_entries" else rows[0][key])
            assert single.status_code == 200, (name, single.text)
            if hidden := HIDDEN.get(name):
                assert hidden not in rows[0] | single.json() | schema["properties"], name
                for query in (f"__order={hidden}", f"{hidden}=1", f"__visible_fields={hidden}"):
                    assert ada.get(f"{path}?{query}").status_code == 400, (name, query)
            content = {**rows[0], key: "2" if table._meta.primary_key.value_type is str else 2}
            assert ada.post(path, json=content).status_code in (400, 403, 422), name
            assert ada.patch(row, json={}).status_code == 403, name
            assert ada.put(row, json=content).status_code in (400, 403, 405, 422), name
            assert ada.delete(row).status_code == 403, name
            assert ada.delete(path).status_code in (403, 405), name
            kept = connection.execute(
                sql.SQL("SELECT count(*) AS rows FROM {}").format(sql.Identifier(name))
            ).fetchone()
            assert kept == {"rows": len(rows)}, name
    assert "Traceback" not in web.log()


def test_the_way_to_the_desk_is_open_to_those_whose_page_it_is(
    web: Services, connection: Connection
) -> None:
    create_operators(web)
    assert web.run("mailroom", "user", "role", "olga", "viewer").returncode == 0
    users = connection.execute("SELECT id FROM piccolo_user WHERE username = 'olga'").fetchall()
    email = connection.execute("INSERT INTO incoming_emails DEFAULT VALUES RETURNING id").fetchone()
    assert email is not None
    # Zendesk's erasure of an email whose row is gone.
    gone = connection.execute(
        "INSERT INTO sync_events (id, kind, email, sync_version) VALUES (gen_random_uuid(),"
        " 'email.erased', gen_random_uuid(), 1) RETURNING id"
    ).fetchone()
    assert gone is not None
    way = f"/rows/piccolo_user?key={users[0]['id']}"
    nobody = httpx.get(web.url + way)
    assert nobody.headers["location"].startswith("/sign-in?next=%2Frows%2Fpiccolo_user%3Fkey%3D")
    with httpx.Client(base_url=web.url) as olga, httpx.Client(base_url=web.url) as ada:
        sign_in(olga, "olga").raise_for_status()
        sign_in(ada, "ada").raise_for_status()
        assert olga.get(way).status_code == 403
        assert ada.get(way).headers["location"] == f"/people#user-{users[0]['id']}"
        accounts = ada.get(way.replace("piccolo_user", "operator_accounts"))
        assert accounts.headers["location"] == f"/people#user-{users[0]['id']}"
        assert f'id="user-{users[0]["id"]}"' in ada.get("/people").text
        events = ada.get("/rows/sync_events", params={"key": str(gone["id"])})
        assert events.headers["location"] == "/deliveries"
        assert ada.get("/rows/nothing?key=1").status_code == 404
        assert ada.get("/rows/workers").status_code == 400
        page = olga.get(f"/rows/incoming_emails?key={email['id']}").headers["location"]
        back = f'href="/admin/#/incoming_emails/{email["id"]}/"'
        assert back in olga.get(page).text
        assert 'href="/admin/#/suspended_tickets/"' in olga.get("/suspended").text
