"""JSON that no code of ours writes, in every JSON column: pages, lists, the API and commands tell
what can be told of its row, and none of them fails."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from piccolo.columns import JSON
from psycopg import sql
from support import Services, create_operators, create_token, email, sign_in, signed

from app.intake.openapi import WEBHOOK_PATH
from app.piccolo_app import APP_CONFIG

Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

AT = "2026-11-01T10:00:00+00:00"
# Texts, so that some can be of what Python does not write.
OBJECTS = [
    "{}",
    '{"a": 1}',
    '{"a": {"a": [null, {"a": "b"}]}, "1": 1, "-1": 1e400, "999": 1, "x": 1}',
    '{"items": null, "get": 1, "": "", "content-type": 1, "x-zendesk-webhook-signature": []}',
    '{"repaired": 1, "unreadable": [2], "quoted": "q", "signature": 3, "forwarded": {"a": 1}}',
    '{"repaired": null, "unreadable": null, "quoted": null, "completed": "many"}',
    '{"url": "https://example.com/a.png"}',
    '{"subject": ["a"], "from": {"email": [null]}, "ticket": 5, "html": {"a": 1}, "headers": 1}',
    '{"a":' * 300 + "1" + "}" * 300,
    json.dumps({"<b>": "<script>window.hacked = 1</script>", "headers": {"<b>": "'\""}}),
]
HOSTILE = [
    "null",
    "1",
    "-0.5e3",
    "true",
    '""',
    '"text"',
    "[]",
    "[null]",
    "[1, true, 0.5]",
    '["a", "b"]',
    "[[[]], [{}]]",
    '[{"url": 1, "filename": [], "content_type": {}, "size": "x"}, {"url": null}, {}]',
    '[{"at": null, "attempt": null, "error": null}]',
    '[{"at": 1, "attempt": [1], "error": {}, "started_at": 5, "worker": [], "next_attempt_at": 7}]',
    '[{"at": "never", "attempt": "two", "error": 5, "started_at": "x", "next_attempt_at": "y"}]',
    '[{"at": "2026-11-01T10:00:00", "attempt": 1, "error": "without a zone",'
    ' "started_at": "2026-11-01T10:00:00", "next_attempt_at": "2026-11-01T10:00:00"}]',
    '[{"at": "0001-01-01T00:00:00+14:00", "attempt": -1, "error": "before the first day",'
    ' "started_at": "9999-12-31T23:59:59-14:00", "next_attempt_at": "9999-12-31T23:59:59-14:00"}]',
    '[{"at": "0001-01-01T00:00:00Z", "attempt": true, "error": "of the first day",'
    ' "started_at": "9999-12-31T23:59:59Z", "worker": "w"}]',
    f'[{{"a": 1}}, "at", 5, null, ["at"], {{"at": "{AT}"}}]',
    f'[{{"attempt": 1e400, "at": "{AT}", "error": "x", "worker": "w"}}]',
    "9" * 5_000,
    f'[{{"attempt": {"9" * 5_000}}}]',
    "[" * 300 + "]" * 300,
    *OBJECTS,
]
# Of the two types of PostgreSQL `json` alone takes these.
AS_TEXT_ALONE = [
    '"\\u0000"',
    '{"\\u0000": "\\ud800", "a": "b"}',
    '[{"url": "\\u0000", "filename": "\\udfff"}]',
]
OF_EMAIL = ("attachment_urls", "attempt_errors", "extracted_data", "raw_payload")
STATES: dict[str, dict[str, Any]] = {
    "completed": {"cleaned_body": "Hello", "completed_at": AT, "processed_at": AT},
    "failed": {"completed_at": AT, "processing_error": "ValueError: no", "sync_status": "failed"},
    # It waits as a suspect, so that what it waits for is looked for in its entries.
    "queued": {
        "claims": 2,
        "lost_claims": 1,
        "next_attempt_at": datetime.now(UTC) + timedelta(days=1),
    },
}
# Other columns, each with what else its row needs, and who shows it.
OTHERS: dict[tuple[str, str], tuple[dict[str, Any], tuple[str, ...]]] = {
    ("quarantined_webhooks", "headers"): (
        {"reason": "signature", "body": b"{}"},
        ("/quarantine/{id}", "/quarantine", "/api/v1/quarantine/{id}", "/api/v1/quarantine"),
    ),
    ("bulk_actions", "reasons"): (
        {"action": "retry", "asked_by": "olga"},
        ("/bulk/{id}", "/bulk", "/api/v1/bulk-actions/{id}", "/api/v1/bulk-actions"),
    ),
    ("audit_entries", "details"): (
        {"actor_kind": "user", "door": "page", "act": "email.retry", "result": "done"},
        ("/audit", "/audit/export", "/api/v1/audit"),
    ),
    ("throughput", "durations"): ({"minute": None}, ("/?span=day", "/?span=month")),
    ("zendesk_ranges", "ranges"): ({"account": None}, ("/", "/health/ready", "/metrics")),
    ("waiting_attachments", "attachment"): (
        {"event_key": None, "account_id": "1", "ticket_id": "35436", "comment_id": "1"},
        ("/", "/emails?q=ticket%3A35436"),
    ),
}
SHOWN_NOWHERE = {
    ("sign_in_steps", "details"): "secrets of a sign-in under way, found by a hash of a cookie"
}


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def ada(web: Services) -> Iterator[httpx.Client]:
    """An admin, who sees all pages, and whose programs may ask for everything."""
    create_operators(web)
    with httpx.Client(base_url=web.url, timeout=60, follow_redirects=True) as client:
        sign_in(client, "ada").raise_for_status()
        client.headers.update(create_token(web, "hostile", "--scope", "operate"))
        yield client


def put(connection: Connection, table: str, **values: Any) -> None:
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        ),
        list(values.values()),
    )


def put_email(connection: Connection, status: str, **values: Any) -> UUID:
    email_id = uuid4()
    put(
        connection,
        "incoming_emails",
        id=email_id,
        zendesk_ticket_id="35436",
        from_email="erika@example.com",
        subject="Hello",
        processing_status=status,
        **STATES[status],
        **values,
    )
    return email_id


def hostile(column: str) -> list[str]:
    """The values that the type of a column takes."""
    is_binary = column in ("attempt_errors", "reasons", "details", "durations", "ranges")
    return [*HOSTILE, *([] if is_binary else AS_TEXT_ALONE)]


def see_all(client: httpx.Client, paths: list[str]) -> None:
    """See that each answers, and say all that do not."""
    answers = {path: client.get(path).status_code for path in paths}
    assert {path: code for path, code in answers.items() if code >= 300} == {}


def test_every_json_column_is_put_to_it() -> None:
    ours = {
        (table._meta.tablename, column._meta.name)
        for table in APP_CONFIG.table_classes
        for column in table._meta.columns
        if isinstance(column, JSON)
    }
    of_emails = {("incoming_emails", column) for column in OF_EMAIL}
    assert of_emails | OTHERS.keys() | SHOWN_NOWHERE.keys() == ours


@pytest.mark.parametrize("column", OF_EMAIL)
def test_an_email_is_shown_whatever_stands_in_it(
    ada: httpx.Client, connection: Connection, column: str
) -> None:
    # What was mended is linted where it is told of.
    also = {"extracted_data": '{"repaired": []}'} if column == "raw_payload" else {}
    ids = [
        put_email(connection, status, **also, **{column: value})
        for value in hostile(column)
        for status in STATES
    ]
    ways = ("/emails/{}", "/api/v1/jobs/{}", "/emails/{}/html", "/emails/{}/payload")
    see_all(ada, [way.format(email_id) for email_id in ids for way in ways])
    see_all(ada, ["/", "/emails", "/emails?q=hello", "/emails/completions", "/deliveries"])
    see_all(ada, ["/emails?q=handler-result.a%3Ab", "/emails?q=has%3Aattachment", "/files"])
    see_all(ada, ["/api/v1/jobs?limit=200", "/api/v1/jobs/counts"])
    see_all(ada, ["/admin/api/tables/incoming_emails/?__page_size=100"])


@pytest.mark.parametrize(("table", "column"), OTHERS)
def test_a_row_is_shown_whatever_stands_in_it(
    ada: httpx.Client, connection: Connection, table: str, column: str
) -> None:
    values, ways = OTHERS[table, column]
    keyed = {name: value for name, value in values.items() if value is not None}
    paths = []
    for number, value in enumerate(hostile(column)):
        row_id = uuid4()
        key = next(iter(values.keys() - keyed.keys()), "id")
        keys: dict[str, Any] = {
            "minute": datetime.now(UTC) - timedelta(hours=3, minutes=number),
            "id": row_id,
        }
        put(connection, table, **{**keyed, key: keys.get(key, str(row_id)), column: value})
        paths += [way.format(id=row_id) for way in ways if "{id}" in way]
    see_all(ada, paths + [way for way in ways if "{id}" not in way])


def test_commands_tell_of_it(web: Services, connection: Connection) -> None:
    for value in HOSTILE:
        columns = dict.fromkeys(OF_EMAIL, value)
        shown = web.run("mailroom", "show", str(put_email(connection, "queued", **columns)))
        assert (shown.returncode, shown.stderr) == (0, ""), (value, shown.stderr)
    assert web.run("mailroom", "stuck").returncode == 0


def test_what_cannot_be_read_is_told_as_it_stands(
    ada: httpx.Client, connection: Connection
) -> None:
    email_id = put_email(connection, "failed", attempt_errors='[{"at": 5, "by": "hand"}]')
    page = ada.get(f"/emails/{email_id}").text
    assert "{&#34;at&#34;: 5, &#34;by&#34;: &#34;hand&#34;}" in page
    told = ada.get(f"/api/v1/jobs/{email_id}").json()["events"]
    assert '{"at": 5, "by": "hand"}' in [event["what"] for event in told]


def test_operators_can_act_on_it(ada: httpx.Client, connection: Connection) -> None:
    for value in HOSTILE:
        columns = dict.fromkeys(OF_EMAIL, value)
        for action in ("retry", "settle", "discard"):
            email_id = put_email(connection, "failed", **columns)
            token = re.search(
                r'name="token" value="([0-9a-f]+)"', ada.get(f"/emails/{email_id}").text
            )
            assert token is not None
            form = {"token": token[1], "action": action, "reason": "no more", "force": "1"}
            answer = ada.post(f"/emails/{email_id}", data=form)
            assert answer.status_code == 200, (value, action)
            row = connection.execute(
                "SELECT processing_status AS status FROM incoming_emails WHERE id = %s", [email_id]
            ).fetchone()
            assert row is not None
            assert row["status"] == ("queued" if action == "retry" else "completed"), value


def test_webhooks_of_its_ticket_are_taken(web: Services, connection: Connection) -> None:
    for value in HOSTILE:
        put_email(connection, "failed", **dict.fromkeys(OF_EMAIL, value))
    payload = email(ticket_id="35436")
    assert httpx.post(web.url + WEBHOOK_PATH, **signed(payload), timeout=60).status_code == 200
