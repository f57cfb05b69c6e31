"""The jobs API over real HTTP: tokens, lists, details, retries, erasure."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import attrs
import httpx
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import PROJECT, Services, create_token, email, need, signed, wait_until

from app.api.email_pages import page_query
from app.api.job_schemas import BulkRetryRequest
from app.api.search import Cursor, Search
from app.intake.openapi import WEBHOOK_PATH
from app.models.incoming_email import ProcessingStatus

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
PATH = "/api/v1/jobs"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def api(web: Services) -> Iterator[httpx.Client]:
    """A client with the token of the settings."""
    headers = {"Authorization": "Bearer token"}
    with httpx.Client(base_url=web.url, headers=headers) as client:
        yield client


def store(connection: Connection, **columns: Any) -> str:
    values = {
        "zendesk_ticket_id": "1",
        "from_email": "Erika@Example.com",
        "subject": "Hallo",
        "processing_status": "failed",
        "processing_error": "ConnectionError: 100%_sure",
        "received_at": NOON,
        **columns,
    }
    row = connection.execute(
        f"INSERT INTO incoming_emails ({', '.join(values)})"
        f" VALUES ({', '.join(['%s'] * len(values))}) RETURNING id",
        list(values.values()),
    ).fetchone()
    assert row is not None
    return str(row["id"])


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_tokens_open_what_their_scope_says_until_they_are_revoked(
    web: Services, connection: Connection
) -> None:
    email_id = store(connection)
    reads = create_token(web, "monitoring")
    operates = create_token(web, "crm", "--scope", "operate")
    url = f"{web.url}{PATH}"
    retry_url = f"{url}/{email_id}/retry"
    assert httpx.get(url, headers=reads).status_code == 200
    refused = httpx.post(retry_url, headers=reads, json={})
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert "operate" in refused.json()["detail"]
    assert httpx.delete(f"{url}/{email_id}", headers=reads).status_code == 403
    assert httpx.post(f"{url}/retry", headers=reads, json={}).status_code == 403
    retried = httpx.post(retry_url, headers=operates, json={})
    assert retried.status_code == 200
    assert retried.json()["job"]["status"] == "queued"
    assert any("retried by crm" in event["what"] for event in retried.json()["events"])

    listed = web.run("mailroom", "token", "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["monitoring", "read"], ["crm", "operate"]]
    assert all("last used" in line and "valid" in line for line in listed)
    assert web.run("mailroom", "token", "revoke", "crm").returncode == 0
    assert httpx.get(url, headers=operates).status_code == 401
    assert "revoked" in web.run("mailroom", "token", "list").stdout
    again = web.run("mailroom", "token", "revoke", "crm")
    assert again.returncode == 1
    assert "no token named crm is valid" in again.stderr
    taken = web.run("mailroom", "token", "create", "crm")
    assert taken.returncode == 1
    assert "take another name" in taken.stderr

    # What is secret is nowhere but with its owner.
    secrets = [headers["Authorization"].split()[1] for headers in (reads, operates)]
    stored = str(connection.execute("SELECT * FROM api_tokens").fetchall())
    assert not any(secret in stored + web.log() for secret in secrets)


def test_a_scope_of_a_newer_version_opens_nothing_and_is_told(
    web: Services, connection: Connection
) -> None:
    headers = create_token(web, "crm", "--scope", "operate")
    connection.execute("UPDATE api_tokens SET scope = 'conduct'")
    for path in (PATH, "/metrics"):
        refused = httpx.get(web.url + path, headers=headers)
        assert refused.status_code == 403, path
        assert "`conduct`" in refused.json()["detail"]
    assert web.run("mailroom", "token", "list").stdout.split()[:2] == ["crm", "conduct"]


@pytest.mark.parametrize(
    "name", ["", " ", "a" * 101, "crm\nroot  operate", "päckchen", "MAILROOM_API_TOKEN", "a b"]
)
def test_a_token_has_a_name_that_can_be_told_from_others(services: Services, name: str) -> None:
    refused = services.run("mailroom", "token", "create", name)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("mailroom: a token cannot have the name ")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic dG9rZW46"},
        {"Authorization": "token"},
        {"Authorization": "Bearer \udcff".encode("utf-8", "surrogateescape")},
    ],
)
def test_without_a_valid_token_nothing_is_told(
    web: Services, connection: Connection, headers: dict[str, Any]
) -> None:
    email_id = store(connection)
    for method, path in [
        ("GET", ""),
        ("GET", "/counts"),
        ("GET", f"/{email_id}"),
        ("POST", f"/{email_id}/retry"),
        ("POST", "/retry"),
        ("DELETE", f"/{email_id}"),
    ]:
        answer = httpx.request(method, f"{web.url}{PATH}{path}", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "erika" not in answer.text.lower()


def test_a_token_for_metrics_opens_nothing_else(web: Services, connection: Connection) -> None:
    email_id = store(connection)
    scrapes = create_token(web, "prometheus", "--scope", "metrics")
    assert httpx.get(f"{web.url}/metrics", headers=scrapes).status_code == 200
    for path in ("", "/counts", f"/{email_id}"):
        refused = httpx.get(f"{web.url}{PATH}{path}", headers=scrapes)
        assert refused.status_code == 403
        assert "`read`" in refused.json()["detail"]
        assert 'scope="read"' in refused.headers["www-authenticate"]
    assert httpx.delete(f"{web.url}{PATH}/{email_id}", headers=scrapes).status_code == 403
    for scope in ("read", "operate"):
        token = create_token(web, scope, "--scope", scope)
        assert httpx.get(f"{web.url}/metrics", headers=token).status_code == 200


def test_each_parameter_has_an_example_that_is_taken(api: httpx.Client) -> None:
    schema = api.get("/schema/openapi.json").json()
    for parameter in schema["paths"][PATH]["get"]["parameters"]:
        shown = [shown["value"] for shown in parameter["examples"].values()]
        assert shown, parameter["name"]
        for value in shown:
            ids(api.get(PATH, params={parameter["name"]: value}))


def test_emails_are_found_by_each_filter(api: httpx.Client, connection: Connection) -> None:
    first = store(connection, received_at=NOON, zendesk_ticket_id="35436")
    second = store(
        connection,
        received_at=NOON + timedelta(hours=1),
        processing_status="completed",
        processing_error=None,
        subject="Päckchen 100%",
        from_email="max@example.com",
        sync_status="pending",
    )
    third = store(connection, received_at=NOON + timedelta(hours=2), processing_status="received")
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [third, second, first]),
        ({"status": "failed"}, [first]),
        ({"status": ["failed", "received"]}, [third, first]),
        ({"status": ["received", "completed", "failed"], "subject": "hallo"}, [third, first]),
        ({"status": ["failed", "failed"]}, [first]),
        ({"ticket_id": "35436"}, [first]),
        ({"from_email": "MAX@example.com"}, [second]),
        ({"subject": "päck"}, [second]),
        ({"subject": "100%"}, [second]),
        ({"subject": "%"}, [second]),
        ({"subject": "_"}, []),
        ({"error": "connectionerror: 100%_"}, [third, first]),
        ({"sync_status": "pending"}, [second]),
        ({"received_from": "2026-11-23T13:00:00Z"}, [third, second]),
        ({"received_until": "2026-11-23T13:00:00"}, [first]),
        ({"received_from": "2026-11-23T14:00:00+01:00", "status": "completed"}, [second]),
    ]
    for parameters, found in expected:
        assert ids(api.get(PATH, params=parameters)) == found, parameters


def test_lists_and_details_tell_of_the_delivery(api: httpx.Client, connection: Connection) -> None:
    delivery = {
        "sync_status": "pending",
        "sync_error": "the receiver answered 503",
        "sync_retry_count": 2,
        "sync_next_attempt_at": NOON + timedelta(days=36_500),
        "synced_at": NOON,
    }
    email_id = store(connection, processing_status="completed", **delivery)
    (listed,) = api.get(PATH, params={"sync_status": "pending"}).json()["items"]
    detail = api.get(f"{PATH}/{email_id}").json()
    for told in (listed, detail["job"]):
        for name, value in delivery.items():
            found = datetime.fromisoformat(told[name]) if name.endswith("_at") else told[name]
            assert found == value, name
    # Nothing is delivered here.
    assert "MAILROOM_SYNC_URL" in detail["next_step"]


def test_pages_stay_right_while_emails_arrive(api: httpx.Client, connection: Connection) -> None:
    # Several were received at the same moment.
    stored = [store(connection, received_at=NOON + timedelta(days=n // 3)) for n in range(10)]
    seen: list[str] = []
    cursor = None
    while True:
        answer = api.get(PATH, params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        seen += ids(answer)
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
        store(connection, received_at=NOON + timedelta(days=30))
    assert len(seen) == len(set(seen)) == len(stored)
    assert set(seen) == set(stored)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"status": "lost"}, "status"),
        ({"limit": "0"}, "limit"),
        ({"limit": "201"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "bnVsbA=="}, "cursor"),
        ({"cursor": "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwgIngiXQ=="}, "cursor"),
        ({"received_from": "yesterday"}, "received_from"),
        ({"received_until": "0001-01-01T00:00:00+14:00"}, "received_until"),
        ({"subject": "a\x00b"}, "subject"),
    ],
)
def test_wrong_parameters_are_named(
    api: httpx.Client, parameters: dict[str, str], field: str
) -> None:
    answer = api.get(PATH, params=parameters)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [("", {"state": "failed"}), ("/counts", {"status": "failed"}), ("", {"\ud800": "x"})],
)
def test_a_misspelt_parameter_is_refused_and_not_overlooked(
    api: httpx.Client, path: str, parameters: dict[str, str]
) -> None:
    query = "&".join(
        f"{quote(name, errors='surrogatepass')}={parameters[name]}" for name in parameters
    )
    answer = api.get(f"{PATH}{path}?{query}")
    assert answer.status_code == 400, answer.text
    (error,) = answer.json()["errors"]
    assert "is no parameter" in error["message"]
    if "state" in parameters:
        assert error["field"] == "state"
        assert "sync_status" in error["message"]


def test_a_misspelt_field_does_not_widen_a_retry_to_all(
    api: httpx.Client, connection: Connection
) -> None:
    email_id = store(connection)
    bulk: list[dict[str, Any]] = [{"eror": "CRM"}, {"sync_status": "failed"}, {"ticket": "35436"}]
    for path, body in [
        *((f"{PATH}/retry", body | {"dry_run": False}) for body in bulk),
        (f"{PATH}/{email_id}/retry", {"forced": True}),
    ]:
        answer = api.post(path, json=body)
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        (error,) = answer.json()["errors"]
        assert error["field"] == next(iter(body))
        assert "is no field: use " in error["message"]
    assert ids(api.get(PATH, params={"status": "failed"})) == [email_id]
    schemas = api.get("/schema/openapi.json").json()["components"]["schemas"]
    for name in ("RetryRequest", "BulkRetryRequest"):
        assert schemas[name]["additionalProperties"] is False


NESTED = "[" * 60_000

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from([field.name for field in attrs.fields(BulkRetryRequest)] + ["force", "x"])
HOSTILE_BODIES = (
    st.binary()
    | st.dictionaries(FIELDS, JSON_VALUES).map(lambda fields: json.dumps(fields).encode())
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [NESTED.encode(), b'{"error": ' + NESTED.encode(), b'{"error": "\xff"}', b'"\\ud800"']
    )
)
HOSTILE_CURSORS = st.text() | (
    st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode())
).map(lambda content: base64.urlsafe_b64encode(content).decode())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "\xff"}', "not JSON in UTF-8"),
        (NESTED.encode(), "nested too deep"),
        (b"force", "not JSON"),
        (b"null", "has to be a JSON object"),
        (b"[]", "has to be a JSON object"),
    ],
)
def test_an_unreadable_body_is_told_what_is_wrong_with_it(
    api: httpx.Client, body: bytes, said: str
) -> None:
    for path in (f"{PATH}/retry", f"{PATH}/{uuid4()}/retry"):
        answer = api.post(path, content=body)
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert said in answer.json()["detail"]


def test_a_retry_without_a_body_has_the_defaults(api: httpx.Client, connection: Connection) -> None:
    email_id = store(connection)
    assert api.post(f"{PATH}/retry").json() == {"matched": 1, "retried": 0}
    assert api.post(f"{PATH}/{email_id}/retry").json()["job"]["status"] == "queued"


def test_nothing_that_is_sent_ends_in_an_error_of_ours(api: httpx.Client) -> None:
    nested = base64.urlsafe_b64encode(b"[" * 1000).decode()

    @settings(max_examples=200)
    @given(body=HOSTILE_BODIES, cursor=HOSTILE_CURSORS, path=st.sampled_from(["", f"/{uuid4()}"]))
    @example(body=b"", cursor=nested, path="")
    def send(body: bytes, cursor: str, path: str) -> None:
        answers = [
            api.post(f"{PATH}{path}/retry", content=body),
            api.get(f"{PATH}?cursor={quote(cursor, errors='surrogatepass')}"),
        ]
        for answer in answers:
            assert answer.status_code in (200, 400, 404), answer.text
            if answer.is_error:
                assert answer.headers["content-type"] == "application/problem+json"

    send()


@pytest.mark.parametrize("text", ["1e308", "-1", "9" * 400, "inf", "0001-01-01", "+1000000-01-01"])
def test_odd_values_of_parameters_end_in_no_error_of_ours(api: httpx.Client, text: str) -> None:
    for name in ("received_from", "received_until", "limit", "status", "cursor"):
        assert api.get(PATH, params={name: text}).status_code in (200, 400), name


def test_an_email_tells_its_whole_story(api: httpx.Client, web: Services) -> None:
    web.write_handler(
        "async def handle(email):\n"
        "    if not email.attempt_errors:\n"
        "        raise ConnectionError('the CRM is away')\n"
        "    email.cleaned_body = 'clean'\n"
        "    return {'case': 7}\n"
    )
    web.start_worker()
    delivery = signed(email(attachments=[{"url": "https://example.com/1"}]))
    email_id = httpx.post(f"{web.url}{WEBHOOK_PATH}", **delivery).json()["email_id"]

    def detail() -> dict[str, Any]:
        answer: dict[str, Any] = api.get(f"{PATH}/{email_id}").json()
        return answer

    wait_until(lambda: detail()["job"]["status"] == "completed", web.log)
    told = detail()
    said = [event["what"] for event in told["events"]]
    assert said[0].startswith("received")
    assert any(what.startswith("attempt 1: ConnectionError: the CRM is away (by ") for what in said)
    assert said[-1] == "completed"
    assert told["next_step"] == "nothing: it is done"
    assert told["extracted_data"] == {"case": 7}
    assert told["cleaned_body"] == "clean"
    assert told["attachments"][0]["url"] == "https://example.com/1"
    assert told["job"]["retry_count"] == 1


def test_only_what_failed_is_retried_or_by_force_what_completed(
    api: httpx.Client, connection: Connection
) -> None:
    completed = store(connection, processing_status="completed")
    refused = api.post(f"{PATH}/{completed}/retry", json={})
    assert refused.status_code == 409
    assert "the email is completed" in refused.json()["detail"]
    assert api.post(f"{PATH}/{completed}/retry", json={"force": True}).status_code == 200
    again = api.post(f"{PATH}/{completed}/retry", json={"force": True})
    assert again.status_code == 409
    assert api.post(f"{PATH}/{uuid4()}/retry", json={}).status_code == 404
    assert api.post(f"{PATH}/x/retry", json={}).status_code == 404


def test_many_are_retried_by_a_filter_after_a_dry_run(
    api: httpx.Client, connection: Connection
) -> None:
    meant = {store(connection, processing_error="the CRM is away") for _ in range(3)}
    store(connection, processing_error="no text")
    store(connection, processing_error="the CRM is away", processing_status="completed")
    body: dict[str, Any] = {"error": "crm is away"}
    assert api.post(f"{PATH}/retry", json=body).json() == {"matched": 3, "retried": 0}
    assert len(ids(api.get(PATH, params={"status": "failed"}))) == 4
    body["dry_run"] = False
    assert api.post(f"{PATH}/retry", json=body).json() == {"matched": 3, "retried": 3}
    assert set(ids(api.get(PATH, params={"status": "queued"}))) == meant
    assert api.post(f"{PATH}/retry", json=body).json() == {"matched": 0, "retried": 0}
    wrong = api.post(f"{PATH}/retry", json={"received_from": "soon"})
    assert wrong.status_code == 400
    assert wrong.json()["errors"][0]["field"] == "received_from"


def test_an_erased_email_is_gone(api: httpx.Client, connection: Connection) -> None:
    email_id = store(connection)
    assert api.delete(f"{PATH}/{email_id}").status_code == 204
    assert api.get(f"{PATH}/{email_id}").status_code == 404
    assert api.delete(f"{PATH}/{email_id}").status_code == 404
    assert connection.execute("SELECT id FROM incoming_emails").fetchall() == []


def test_counts_tell_each_state(api: httpx.Client, connection: Connection) -> None:
    for n in range(3):
        store(connection, received_at=NOON + timedelta(hours=n))
    counts = api.get(f"{PATH}/counts").json()
    assert counts["failed"] == {"emails": 3, "oldest_received_at": "2026-11-23T12:00:00Z"}
    assert counts["queued"] == {"emails": 0, "oldest_received_at": None}
    assert set(counts) == {"received", "queued", "processing", "completed", "failed"}


def test_a_database_that_is_away_is_said_to_be(web: Services, tmp_path: Any) -> None:
    environment = {"DATABASE_URL": f"postgresql://x@/x?host={tmp_path}"}
    other = Services(environment["DATABASE_URL"], tmp_path)
    other.start_web()
    try:
        for token in ("token", "another"):
            answer = httpx.get(f"{other.url}{PATH}", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert answer.headers["content-type"] == "application/problem+json"
    finally:
        other.end()


async def test_lists_are_found_by_index(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    await pool.execute(
        "INSERT INTO incoming_emails"
        " (zendesk_ticket_id, from_email, received_at, processing_status)"
        " SELECT n::text, n || '@example.com', now() - n * interval '10 minutes',"
        " CASE WHEN n % 25 = 0 THEN 'failed' ELSE 'completed' END"
        " FROM generate_series(1, 20000) AS n"
    )
    await pool.execute("VACUUM ANALYZE incoming_emails")
    # So many that the planner would rather read the rest of them than sort.
    await pool.execute(
        "UPDATE pg_class SET reltuples = 200000 WHERE oid = 'incoming_emails'::regclass OR oid IN"
        " (SELECT indexrelid FROM pg_index WHERE indrelid = 'incoming_emails'::regclass)"
    )
    failed, queued = ProcessingStatus.FAILED, ProcessingStatus.QUEUED
    ends = [
        Cursor(datetime.now(UTC) - timedelta(minutes=minutes), uuid4())
        for minutes in (0, 100_000, 199_000)
    ]
    for search, index in [
        (Search(), "ix_incoming_emails_received"),
        (Search(ticket_id="7"), "ix_incoming_emails_ticket"),
        (Search(from_email="7@example.com"), "ix_incoming_emails_sender"),
        (Search(status=[failed]), "ix_incoming_emails_status_received"),
        (Search(status=[failed, queued]), "ix_incoming_emails_status_received"),
        (Search(status=[failed], error="x"), "ix_incoming_emails_status_received"),
    ]:
        for after in (None, *ends):
            query, parameters = page_query(search, limit=501, after=after)
            rows = await pool.fetch(f"EXPLAIN {query}", *parameters)
            plan = "\n".join(row[0] for row in rows)
            used = set(re.findall(r"using (\w+)|Scan on (ix_\w+)", plan))
            assert {name for names in used for name in names if name} == {index}, (search, plan)
            assert "Seq Scan" not in plan


def test_ids_of_jobs_are_those_of_the_webhook(api: httpx.Client, web: Services) -> None:
    answer = httpx.post(f"{web.url}{WEBHOOK_PATH}", **signed(email())).json()
    assert ids(api.get(PATH)) == [answer["email_id"]]
    assert UUID(answer["email_id"])


def documented(heading: str) -> str:
    """The text of a section of docs/api.md."""
    text = (PROJECT / "docs/api.md").read_text()
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_documented_curl_session_works_as_printed(
    web: Services, connection: Connection
) -> None:
    need("curl")
    meant = [store(connection) for _ in range(3)]
    lines = [line[4:] for line in documented("With curl").splitlines() if line.startswith("    ")]
    script = "set -e\n" + "\n".join(
        # Each answer on a line of its own.
        f"{line}; echo" if line.endswith(("counts", '"', "retry")) else line
        for line in lines
    ).replace("http://127.0.0.1:8000", web.url)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, **web.environment, "PATH": path},
        cwd=web.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    counts, page, dry_run, retried = map(json.loads, ended.stdout.splitlines())
    assert counts["failed"]["emails"] == 3
    assert len(page["items"]) == 2
    assert dry_run == {"matched": 3, "retried": 0}
    assert retried == {"matched": 3, "retried": 3}
    states = connection.execute("SELECT id, processing_status FROM incoming_emails").fetchall()
    assert {(str(row["id"]), row["processing_status"]) for row in states} == {
        (email_id, "queued") for email_id in meant
    }


def test_the_documented_python_session_works_as_printed(
    web: Services, connection: Connection
) -> None:
    for _ in range(60):
        store(connection)
    code = documented("With Python").split("```python\n")[1].split("```")[0]
    script = code.replace("http://127.0.0.1:8000", web.url)
    file = web.folder / "session.py"
    file.write_text(script)
    cache = str(PROJECT / ".mypy_cache")
    checked = web.run("mypy", "--strict", str(file), MYPY_CACHE_DIR=cache)
    assert checked.returncode == 0, checked.stdout
    ended = web.run("python", str(file), TOKEN="token")
    assert ended.returncode == 0, ended.stderr
    assert len(set(ended.stdout.splitlines())) == 60


def test_json_that_older_versions_stored_is_readable(
    api: httpx.Client, connection: Connection
) -> None:
    """PostgreSQL's `json` keeps escapes that no answer can carry, and nesting without end."""
    job_id = store(
        connection,
        attachment_urls='[{"url": "https://example.org/1", "alt": "photo \\ud83d", "\\u0000": 1}]',
        extracted_data=f'{{"a": "\\ud83d\\udce6 \\udc00", "deep": {"[" * 15_000}{"]" * 15_000}}}',
    )
    answer = api.get(f"{PATH}/{job_id}")
    assert answer.status_code == 200, answer.text
    (file,) = answer.json()["attachments"]
    assert file["alt"] == "photo \ufffd"
    # Too deep for the reader of any Python: its text is given.
    assert answer.json()["extracted_data"].startswith('{"a"')
    listed = api.get(PATH, params={"ticket_id": "1"})
    assert listed.status_code == 200


def test_what_was_sent_and_not_taken_is_told_in_the_story(api: httpx.Client) -> None:
    payload = email(subject=["a", "b"], attachments=[{"url": "https://example.org/1"}, "b.pdf"])
    payload["attachments"][0]["alt"] = "photo \ud83d"
    stored = api.post(WEBHOOK_PATH, **signed(payload))
    assert stored.status_code == 200, stored.text
    job = api.get(f"{PATH}/{stored.json()['email_id']}").json()
    (file,) = job["attachments"]
    assert (file["url"], file["alt"]) == ("https://example.org/1", "photo \ufffd")
    assert job["job"]["subject"] == ""
    told = " ".join(event["what"] for event in job["events"])
    assert "subject is not taken" in told
    assert "attachments: 1 not taken" in told
