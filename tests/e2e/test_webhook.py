"""The webhook, health and schema as they are over HTTP: real processes, real PostgreSQL."""

import asyncio
import base64
import contextlib
import http.client
import json
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import jsonschema
import psycopg
import pytest
from databases import Databases
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    Services,
    email,
    free_port,
    shut_out,
    signed,
    wait_until,
)

from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER

WEBHOOK = "/api/v1/zendesk/webhook"
LIMIT = 1_000_000
TIMEOUT = 60.0
ERRORS = {"400", "401", "413", "415", "503"}

Rows = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def web(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A web process on a database of its own, for all tests that leave both as they are."""
    url = databases.create(migrated=True)
    running = Services(url, tmp_path_factory.mktemp("web"))
    running.start_web(MAILROOM_MAX_BODY_BYTES=str(LIMIT))
    yield running
    running.end()
    databases.drop(url)


@pytest.fixture(scope="module")
def client(web: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture
def rows(web: Services) -> Iterator[Rows]:
    """Tells which rows the test has added to the database of `web`."""
    with psycopg.connect(
        web.environment["DATABASE_URL"], autocommit=True, row_factory=psycopg.rows.dict_row
    ) as connection:
        connection.execute("DELETE FROM incoming_emails")
        yield lambda: connection.execute(
            "SELECT *, raw_payload::text AS payload_text FROM incoming_emails"
        ).fetchall()


@pytest.fixture(scope="module")
def schema(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/schema/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def post(services: Services, **arguments: Any) -> httpx.Response:
    return httpx.post(services.url + WEBHOOK, timeout=TIMEOUT, **arguments)


def without(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    """The arguments of a request without some headers."""
    headers = {n: value for n, value in arguments["headers"].items() if n not in names}
    return {**arguments, "headers": headers}


def with_headers(arguments: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The arguments of a request with other headers; underscores stand for hyphens."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return {**arguments, "headers": {**arguments["headers"], **changed}}


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The answer is problem details by RFC 9457, and says more than its status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = answer.json()
    assert content["type"] == "about:blank"
    assert content["title"] == HTTPStatus(status).phrase
    assert content["status"] == status
    assert content["detail"] not in ("", content["title"])
    return content


def assert_unavailable(answer: httpx.Response) -> None:
    """The answer is a 503 as Zendesk repeats it."""
    assert_problem(answer, 503)
    assert 0 < int(answer.headers["retry-after"]) < 60


def connect(services: Services) -> socket.socket:
    parts = urlsplit(services.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT)


def head_of(arguments: dict[str, Any], **headers: str) -> bytes:
    """The head of a POST of these arguments, as bytes."""
    lines = [f"POST {WEBHOOK} HTTP/1.1", "Host: localhost"]
    for name, value in with_headers(arguments, **headers)["headers"].items():
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_answer(connection: socket.socket) -> httpx.Response:
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


# --- What is taken ---------------------------------------------------------------------------


def test_an_email_is_accepted_and_stored(client: httpx.Client, rows: Rows) -> None:
    payload = email(
        attachments=[{"url": "https://example.com/a.pdf", "filename": "a.pdf", "size": "7"}],
        unknown={"kept": True},
    )
    answer = client.post(WEBHOOK, **signed(payload))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["status"] == "accepted"
    assert answer.json()["message"]
    (row,) = rows()
    assert UUID(answer.json()["email_id"]) == row["id"]
    assert row["subject"] == payload["subject"]
    assert row["raw_payload"] == payload
    assert row["attachment_urls"] == [
        {"url": "https://example.com/a.pdf", "filename": "a.pdf", "content_type": None, "size": 7}
    ]


def test_a_redelivery_is_a_duplicate_with_the_same_id(client: httpx.Client, rows: Rows) -> None:
    payload = email()
    first, again, once_more = (client.post(WEBHOOK, **signed(payload)) for _ in range(3))
    assert first.json()["status"] == "accepted"
    for answer in (again, once_more):
        assert answer.status_code == 200
        assert answer.json()["status"] == "duplicate"
        assert answer.json()["email_id"] == first.json()["email_id"]
    assert len(rows()) == 1


def test_a_constant_webhook_id_loses_nothing(client: httpx.Client, rows: Rows) -> None:
    answers = [client.post(WEBHOOK, **signed(email(webhook_id="constant"))) for _ in range(50)]
    assert {answer.json()["status"] for answer in answers} == {"accepted"}
    assert {UUID(answer.json()["email_id"]) for answer in answers} == {r["id"] for r in rows()}
    assert len(rows()) == 50


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"],
)
def test_json_is_taken_however_it_is_announced(client: httpx.Client, content_type: str) -> None:
    arguments = with_headers(signed(email()), content_type=content_type)
    assert client.post(WEBHOOK, **arguments).status_code == 200


def test_a_body_in_chunks_is_taken(client: httpx.Client, rows: Rows) -> None:
    arguments = signed(email())
    body = arguments["content"]
    arguments["content"] = (body[at : at + 7] for at in range(0, len(body), 7))
    assert client.post(WEBHOOK, **arguments).json()["status"] == "accepted"
    assert rows()[0]["payload_text"] == body.decode()


def test_a_body_of_the_largest_size_is_taken(client: httpx.Client, rows: Rows) -> None:
    body = json.dumps(email()).encode().ljust(LIMIT)
    assert client.post(WEBHOOK, **signed(body)).status_code == 200
    assert len(rows()[0]["payload_text"]) == LIMIT


def test_the_same_email_twice_without_any_id_is_two(client: httpx.Client, rows: Rows) -> None:
    for seconds in range(2):
        arguments = signed(
            email(webhook_id=None, from_email="a@example.com"),
            at=datetime.now(UTC) - timedelta(seconds=seconds),
        )
        answer = client.post(WEBHOOK, **without(arguments, INVOCATION_HEADER))
        assert answer.json()["status"] == "accepted"
    assert len(rows()) == 2


async def test_a_thousand_at_once_are_each_stored_once(web: Services, rows: Rows) -> None:
    payloads = [email(number=number) for number in range(667)]
    deliveries = payloads + payloads[:333]
    async with contextlib.AsyncExitStack() as stack:
        few = httpx.Limits(max_connections=10)
        # One client for all would spend its time on choosing among its connections.
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=web.url, timeout=TIMEOUT, limits=few)
            )
            for _ in range(20)
        ]
        answers = await asyncio.gather(
            *(
                clients[number % 20].post(WEBHOOK, **signed(payload))
                for number, payload in enumerate(deliveries)
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    ids = [answer.json()["email_id"] for answer in answers]
    assert ids[667:] == ids[:333]
    stored = {str(row["id"]): row["raw_payload"]["number"] for row in rows()}
    assert stored == {ids[number]: number for number in range(667)}
    statuses = [answer.json()["status"] for answer in answers]
    assert statuses.count("accepted") == 667
    assert statuses.count("duplicate") == 333


# --- What is refused -------------------------------------------------------------------------


def broken_signatures() -> dict[str, dict[str, Any]]:
    good = signed(email())
    return {
        "none": without(good, SIGNATURE_HEADER, TIMESTAMP_HEADER),
        "no signature": without(good, SIGNATURE_HEADER),
        "no timestamp": without(good, TIMESTAMP_HEADER),
        "another secret": signed(email(), secret="another secret"),
        "another body": {**good, "content": good["content"] + b" "},
        "no body": {**good, "content": b""},
        "not base64": with_headers(good, **{SIGNATURE_HEADER: "!" * 44}),
        "not ascii": with_headers(good, **{SIGNATURE_HEADER: b"\xe4" * 44}),
        "a timestamp that is not ascii": with_headers(good, **{TIMESTAMP_HEADER: b"\xff"}),
        "too old": signed(email(), at=datetime.now(UTC) - timedelta(days=1, minutes=1)),
        "too far ahead": signed(email(), at=datetime.now(UTC) + timedelta(days=1, minutes=1)),
    }


@pytest.mark.parametrize("name", broken_signatures())
def test_without_a_valid_signature_it_is_401(client: httpx.Client, rows: Rows, name: str) -> None:
    answer = client.post(WEBHOOK, **broken_signatures()[name])
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"]
    assert rows() == []


def test_a_late_delivery_is_an_email(client: httpx.Client, rows: Rows) -> None:
    at = datetime.now(UTC) - timedelta(hours=23, minutes=59)
    assert client.post(WEBHOOK, **signed(email(), at=at)).status_code == 200
    assert len(rows()) == 1


def test_every_wrong_field_is_named_at_once(client: httpx.Client, rows: Rows) -> None:
    payload = email(ticket_id=None, from_email=" ")
    content = assert_problem(client.post(WEBHOOK, **signed(payload)), 400)
    assert {error["field"] for error in content["errors"]} == {"ticket_id", "from_email"}
    assert all(error["message"] for error in content["errors"])
    assert rows() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"[]",
        b'[{"ticket_id": 1}]',
        b"null",
        b'"text"',
        b"{}",
        b'{"ticket_id": 1,}',
        b"[" * 100_000 + b"]" * 100_000,
        b"\x00",
    ],
)
def test_an_unreadable_body_is_400(client: httpx.Client, rows: Rows, body: bytes) -> None:
    assert_problem(client.post(WEBHOOK, **signed(body)), 400)
    assert rows() == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"ticket_id": "say "hello""}',
        b'{"ticket_id": "1", "from_email": "a@example.com", "subject": "a", "subject": "b"}',
        b"\xff\xfe\x00\x01",
        "ticket_id=1".encode("utf-16"),
        b'{"a":' * 100_000,
        b"<email/>",
        b'{"ticket_id": "1", "from_email": "a@example.com", "subject": "cut o',
    ],
)
def test_what_is_signed_and_cannot_be_read_is_an_email_that_failed(
    client: httpx.Client, rows: Rows, body: bytes
) -> None:
    answer = client.post(WEBHOOK, **signed(body))
    assert (answer.status_code, answer.json()["status"]) == (200, "accepted")
    (row,) = rows()
    assert row["processing_status"] == "failed"
    assert row["processing_error"]
    assert json.loads(row["payload_text"]) == body.decode("utf-8", "backslashreplace").replace(
        "\x00", "\\x00"
    )


def test_what_cannot_be_read_is_told_by_its_story_and_kept_to_be_mended(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    services.start_web()
    body = b'{"ticket_id": "1", "from_email": "a@example.com", "subject": "a "b"", "x": "y"}'
    answer = post(services, **signed(body))
    shown = services.run("mailroom", "show", answer.json()["email_id"])
    assert "failed: the body is not JSON" in shown.stdout
    (kept,) = connection.execute("SELECT reason FROM quarantined_webhooks").fetchall()
    assert kept == {"reason": "unreadable"}
    retried = services.run("mailroom", "quarantine", "retry", "--all")
    assert retried.stdout == "0 accepted, 0 duplicates, 1 refused again\n"
    # Its template is known now, so the same bytes can be read.
    known = {"MAILROOM_WEBHOOK_FIELDS": "ticket_id,from_email,subject,x"}
    retried = services.run("mailroom", "quarantine", "retry", "--all", **known)
    assert retried.stdout == "1 accepted, 0 duplicates, 0 refused again\n"
    (row,) = connection.execute("SELECT * FROM incoming_emails").fetchall()
    assert (str(row["id"]), row["subject"]) == (answer.json()["email_id"], 'a "b"')
    assert row["processing_status"] == "received"


def test_one_bad_byte_is_replaced_and_told(client: httpx.Client, rows: Rows) -> None:
    body = b'{"ticket_id": "\xff", "from_email": "a@example.com"}'
    assert client.post(WEBHOOK, **signed(body)).status_code == 200
    (row,) = rows()
    assert row["zendesk_ticket_id"] == "\ufffd"
    assert "not UTF-8" in row["extracted_data"]["repaired"][0]


def test_the_charset_of_the_content_type_is_heeded(client: httpx.Client, rows: Rows) -> None:
    body = json.dumps(email(subject="Größe 5 €"), ensure_ascii=False).replace("📦", "")
    arguments = with_headers(
        signed(body.encode("cp1252")), content_type="application/json; charset=windows-1252"
    )
    assert client.post(WEBHOOK, **arguments).status_code == 200
    (row,) = rows()
    assert (row["subject"], row["extracted_data"]) == ("Größe 5 €", None)


@pytest.mark.parametrize(
    "odd",
    [
        b'"\\u0000"',
        b'"a raw \x00 NUL"',
        b'"a raw\nline break"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"9" * 100_000,
        b"1e999999",
        b'1, "odd": 2, "ticket_id": 2',
        b'"' + b"\\u0000" * 10_000 + b'"',
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
def test_an_odd_body_is_an_email_and_kept_whole(
    client: httpx.Client, rows: Rows, odd: bytes, mark: bytes
) -> None:
    body = mark + b'{"ticket_id": 1, "from_email": "a@example.com", "odd": %b}' % odd
    answer = client.post(WEBHOOK, **signed(body))
    assert answer.status_code == 200, answer.text
    (row,) = rows()
    assert row["from_email"] == "a@example.com"
    kept = body.decode().replace("\x00", "\\x00")
    assert kept in (row["payload_text"], json.loads(row["payload_text"]))


@pytest.mark.parametrize(
    "field", ["ticket_id", "from_email", "from_name", "subject", "body_html", "webhook_id"]
)
@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "ä" * 5_000, "📦" * 5_000, "' OR 1=1; --"])
def test_an_odd_text_is_taken_in_every_field(
    client: httpx.Client, rows: Rows, field: str, text: str
) -> None:
    assert client.post(WEBHOOK, **signed(email(**{field: text}))).status_code == 200
    assert len(rows()) == 1


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonp",
        "text/html; application/json",
    ],
)
def test_what_is_not_announced_as_json_is_415(
    client: httpx.Client, rows: Rows, content_type: str | None
) -> None:
    arguments = without(signed(email()), "content-type")
    if content_type is not None:
        arguments = with_headers(arguments, content_type=content_type)
    content = assert_problem(client.post(WEBHOOK, **arguments), 415)
    assert "JSON" in content["detail"]
    assert rows() == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_body_is_415(client: httpx.Client, rows: Rows, encoding: str) -> None:
    arguments = with_headers(signed(email()), content_encoding=encoding)
    content = assert_problem(client.post(WEBHOOK, **arguments), 415)
    assert "Content-Encoding" in content["detail"]
    assert rows() == []


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(
    web: Services, rows: Rows
) -> None:
    with connect(web) as connection:
        connection.sendall(head_of(signed(b"{}"), content_length=str(LIMIT + 1)))
        content = assert_problem(read_answer(connection), 413)
    assert str(LIMIT) in content["detail"]
    assert "MAILROOM_MAX_BODY_BYTES" in content["detail"]
    assert rows() == []


def test_a_body_without_end_is_refused_while_it_is_sent(web: Services, rows: Rows) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    with connect(web) as connection:
        connection.sendall(head_of(signed(b"{}"), transfer_encoding="chunked"))
        # Far more than the limit and all buffers on the way hold together.
        while not select.select([connection], [], [], 0)[0] and sent < 100 * LIMIT:
            if select.select([], [connection], [], 0.1)[1]:
                sent += connection.send(chunk[sent % len(chunk) :])
        content = assert_problem(read_answer(connection), 413)
    assert "MAILROOM_MAX_BODY_BYTES" in content["detail"]
    assert LIMIT < sent < 100 * LIMIT
    assert rows() == []


@pytest.mark.parametrize("path", ["/api/v1/zendesk", "/api/v1/zendesk/webhooks", "/%ff", "/x"])
def test_what_is_not_there_is_404(client: httpx.Client, path: str) -> None:
    assert_problem(client.post(path, **signed(email())), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", WEBHOOK, "POST"),
        ("PUT", WEBHOOK, "POST"),
        ("PATCH", WEBHOOK, "POST"),
        ("DELETE", WEBHOOK, "POST"),
        ("POST", "/", "GET"),
        ("POST", "/health/live", "GET"),
        ("POST", "/health/ready", "GET"),
    ],
)
def test_another_method_is_405_and_told_the_right_one(
    client: httpx.Client, rows: Rows, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path, **signed(email()))
    content = assert_problem(answer, 405)
    assert allowed in [name.strip() for name in answer.headers["allow"].split(",")]
    assert allowed in content["detail"]
    assert rows() == []


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/schema", "/overview/files/overview.css"]
)
def test_head_is_answered_as_get_is_without_the_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]


def test_head_is_possible_where_get_is_and_nowhere_else(client: httpx.Client) -> None:
    paths = client.get("/schema/openapi.json").json()["paths"]
    for path, methods in paths.items():
        answer = client.head(re.sub(r"{[^}]*}", "00000000-0000-0000-0000-000000000000", path))
        assert (answer.status_code == 405) == ("get" not in methods), path
        assert answer.status_code < 500, (path, answer.status_code)
    allowed = client.post("/health/live").headers["allow"]
    assert sorted(allowed.split(", ")) == ["GET", "HEAD", "OPTIONS"]


@pytest.mark.parametrize(
    "folder", ["", "/schema", "/schema/files", "/overview/files", "/health", "/api/v1"]
)
def test_unknown_paths_are_told_as_problems(client: httpx.Client, folder: str) -> None:
    for path in ("nothing", "nothing.html", "nothing/below"):
        content = assert_problem(client.get(f"{folder}/{path}"), 404)
        assert "/schema/openapi.json" in content["detail"]


# --- What a fuzzer sends ---------------------------------------------------------------------

texts = st.text(st.characters(), max_size=30)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "ticket_id": texts | st.integers() | json_values,
        "from_email": texts | json_values,
        "received_at": texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        **dict.fromkeys(["from_name", "subject", "body_html", "body_text"], texts | json_values),
        "webhook_id": texts | st.integers() | json_values,
        "attachments": st.lists(
            st.fixed_dictionaries({"url": texts}, optional={"size": json_values, "x": json_values})
        ),
        "unknown": json_values,
    },
)
valid_payloads = st.fixed_dictionaries(
    {"ticket_id": st.integers(), "from_email": st.just("a@example.com")},
    optional={
        **dict.fromkeys(["from_name", "subject", "body_html", "body_text", "webhook_id"], texts),
        "received_at": texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        "unknown": json_values,
    },
)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(json.dumps).map(str.encode),
    payloads.map(json.dumps).map(str.encode),
    valid_payloads.map(json.dumps).map(str.encode),
)


@settings(max_examples=80)
@given(bodies)
def test_whatever_is_signed_is_stored_whole_or_refused_with_a_reason(
    web: Services, client: httpx.Client, body: bytes
) -> None:
    answer = client.post(WEBHOOK, **signed(body))
    if answer.status_code != 200:
        assert_problem(answer, 400)
        return
    with psycopg.connect(web.environment["DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT raw_payload::text FROM incoming_emails WHERE id = %s",
            [answer.json()["email_id"]],
        ).fetchone()
    assert row is not None
    if answer.json()["status"] == "accepted":
        kept = body.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
        assert kept in (row[0], json.loads(row[0]))


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                SIGNATURE_HEADER,
                TIMESTAMP_HEADER,
                INVOCATION_HEADER,
                "content-type",
                "content-encoding",
            ]
        ),
        st.binary(max_size=80).map(
            lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F).strip()
        ),
    )
)
def test_whatever_the_headers_hold_there_is_an_answer(
    client: httpx.Client, headers: dict[str, bytes]
) -> None:
    answer = client.post(WEBHOOK, **with_headers(signed(email()), **headers))
    if answer.status_code != 200:
        assert answer.status_code in (401, 415)
        assert_problem(answer, answer.status_code)


# --- Health and schema -----------------------------------------------------------------------


def test_a_web_process_is_live_and_ready(client: httpx.Client) -> None:
    live, ready = client.get("/health/live"), client.get("/health/ready")
    assert (live.status_code, live.json()["status"]) == (200, "ok")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json()["checks"] == {
        "database": "reachable",
        "migrations": "the database fits the code",
        "broker": "reachable",
    }


def test_the_schema_names_the_parts_of_the_webhook_with_examples(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema["components"]["schemas"])
    operation = schema["paths"][WEBHOOK]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/ZendeskWebhookEmail"}
    assert content["examples"]["email"]["value"]["attachments"]
    assert {parameter["name"] for parameter in operation["parameters"]} == {
        SIGNATURE_HEADER,
        TIMESTAMP_HEADER,
        INVOCATION_HEADER,
    }
    assert set(operation["responses"]) == {"200", *ERRORS}
    for status in ERRORS:
        answers = operation["responses"][status]["content"]
        assert list(answers) == ["application/problem+json"]
        assert answers["application/problem+json"]["schema"] == {
            "$ref": "#/components/schemas/ProblemDetails"
        }
    components = schema["components"]["schemas"]
    assert {"ZendeskWebhookEmail", "Attachment", "WebhookResponse"} <= set(components)
    for name in ("ZendeskWebhookEmail", "Attachment", "WebhookResponse", "ProblemDetails"):
        for field, about in components[name]["properties"].items():
            assert about["description"], (name, field)
            # Attachments have theirs in a schema of their own.
            assert about.get("examples") or field == "attachments", (name, field)


def test_the_examples_of_the_schema_are_valid_and_accepted(
    client: httpx.Client, schema: dict[str, Any]
) -> None:
    content = schema["paths"][WEBHOOK]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        validate(example["value"], "ZendeskWebhookEmail", schema)
        assert client.post(WEBHOOK, **signed(example["value"])).status_code == 200
    for name, component in schema["components"]["schemas"].items():
        for field, about in component.get("properties", {}).items():
            for example in about.get("examples", []):
                validate(example, f"{name}/properties/{field}", schema)


def test_every_answer_is_as_the_schema_says(client: httpx.Client, schema: dict[str, Any]) -> None:
    payload = email()
    validate(payload, "ZendeskWebhookEmail", schema)
    too_large = signed(b" " * (LIMIT + 1))
    seen = set()
    for arguments in (
        signed(payload),
        signed(payload),
        signed({}),
        signed(b"["),
        signed(payload, secret="another secret"),
        too_large,
        with_headers(signed(payload), content_type="text/plain"),
    ):
        answer = client.post(WEBHOOK, **arguments)
        described = schema["paths"][WEBHOOK]["post"]["responses"][str(answer.status_code)]
        media = described["content"][answer.headers["content-type"]]
        validate(answer.json(), media["schema"]["$ref"].rpartition("/")[2], schema)
        seen.add(answer.status_code)
    assert seen == {200, 400, 401, 413, 415}
    for path in ("/health/live", "/health/ready"):
        validate(client.get(path).json(), "Health", schema)


def validate(value: Any, component: str, schema: dict[str, Any]) -> None:
    """A value is as a part of the OpenAPI schema says."""
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{component}", "components": schema["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    ).validate(value)


# --- With a process of the test's own --------------------------------------------------------


def test_without_a_database_it_answers_503_from_the_start(services: Services) -> None:
    services.start_web(DATABASE_URL=f"postgresql://postgres@127.0.0.1:{free_port()}/mailroom")
    for _ in range(3):
        assert_unavailable(post(services, **signed(email())))
    ready = httpx.get(f"{services.url}/health/ready")
    assert ready.status_code == 503
    assert ready.json()["status"] == "unavailable"
    assert "not reachable" in ready.json()["checks"]["database"]
    assert httpx.get(f"{services.url}/health/live").status_code == 200
    # What is wrong could not be kept in the quarantine either, so it has to come again.
    assert_unavailable(post(services, **signed({})))


def test_a_broker_that_is_away_is_told_and_email_is_taken(services: Services) -> None:
    services.start_web(BROKER_URL=f"redis://127.0.0.1:{free_port()}/0")
    wait_until(lambda: "emails are stored" in ready(services).json()["checks"]["broker"])
    assert ready(services).status_code == 200
    assert post(services, **signed(email())).status_code == 200


def test_a_database_that_accepts_and_says_nothing_does_not_hold_anything_up(
    services: Services,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/mailroom"
        services.start_web(DATABASE_URL=url, MAILROOM_INTAKE_DEADLINE_SECONDS="0.5")
        assert_unavailable(post(services, **signed(email())))
        ready = httpx.get(f"{services.url}/health/ready", timeout=TIMEOUT)
        assert ready.status_code == 503
        assert "not reachable" in ready.json()["checks"]["database"]


def test_emails_are_taken_again_when_the_database_is_back(
    services: Services, database_url: str
) -> None:
    services.start_web()
    payload = email()
    assert post(services, **signed(email())).status_code == 200
    for _ in range(2):
        with shut_out(database_url):
            assert_unavailable(post(services, **signed(payload)))
            wait_until(lambda: ready(services).status_code == 503)
    answer = post(services, **signed(payload))
    assert answer.status_code == 200
    assert answer.json()["status"] == "accepted"
    wait_until(lambda: ready(services).status_code == 200)


def ready(services: Services) -> httpx.Response:
    return httpx.get(f"{services.url}/health/ready")


def test_a_database_that_is_not_migrated_is_told_and_one_that_is_newer_is_used(
    empty_database_url: str, tmp_path: Path
) -> None:
    services = Services(empty_database_url, tmp_path)
    try:
        services.start_web()
        assert ready(services).status_code == 503
        assert "mailroom migrate" in ready(services).json()["checks"]["migrations"]
        assert_unavailable(post(services, **signed(email())))

        migrated = services.run("mailroom", "migrate")
        assert migrated.returncode == 0, migrated.stderr
        wait_until(lambda: ready(services).status_code == 200)
        assert post(services, **signed(email())).status_code == 200

        with psycopg.connect(empty_database_url) as connection:
            connection.execute(
                "INSERT INTO migration (name, app_name, ran_on) "
                "VALUES ('2099-01-01T00:00:00:000000', 'mailroom', now())"
            )
        newer = "newer than the code (unknown: 2099-01-01"
        wait_until(lambda: newer in ready(services).json()["checks"]["migrations"])
        assert ready(services).status_code == 200
        assert post(services, **signed(email())).status_code == 200
    finally:
        services.end()


def test_unsigned_webhooks_are_taken_only_where_that_is_set(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    services.start_web(MAILROOM_ACCEPT_UNSIGNED="true")
    unsigned = without(signed(email()), SIGNATURE_HEADER, TIMESTAMP_HEADER)
    assert post(services, **unsigned).json()["status"] == "accepted"
    assert post(services, **unsigned).json()["status"] == "duplicate"
    assert post(services, **signed(email())).json()["status"] == "accepted"
    assert_problem(post(services, **signed(email(), secret="another secret")), 401)
    assert_problem(post(services, **without(signed(email()), SIGNATURE_HEADER)), 401)
    stored = connection.execute("SELECT count(*) FROM incoming_emails").fetchone()
    assert stored == {"count": 2}


def test_a_body_that_does_not_arrive_in_time_is_503_and_holds_nobody_up(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    services.start_web(MAILROOM_INTAKE_DEADLINE_SECONDS="5")
    arguments = signed(email())
    body = arguments["content"]
    with connect(services) as slow:
        slow.sendall(head_of(arguments, content_length=str(len(body))) + body[:10])
        assert post(services, **signed(email())).status_code == 200
        assert_unavailable(read_answer(slow))
    stored = connection.execute("SELECT count(*) FROM incoming_emails").fetchone()
    assert stored == {"count": 1}


def test_sigterm_answers_every_request_in_flight_and_exits_0(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    process = services.start_web()
    requests = [signed(email()) for _ in range(12)]
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(psycopg.connect(services.environment["DATABASE_URL"]))
        lock.execute("LOCK TABLE incoming_emails IN ACCESS EXCLUSIVE MODE")
        sockets = []
        for arguments in requests:
            client = stack.enter_context(connect(services))
            length = str(len(arguments["content"]))
            client.sendall(head_of(arguments, content_length=length, expect="100-continue"))
            # The server says so when it begins to read the body: the request is in its hands.
            assert client.recv(1_000).startswith(b"HTTP/1.1 100 ")
            sockets.append(client)
        for client, arguments in list(zip(sockets, requests, strict=True))[:6]:
            client.sendall(arguments["content"])
        wait_until(lambda: blocked(connection), services.log)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in services.log(), services.log)
        for client, arguments in list(zip(sockets, requests, strict=True))[6:]:
            client.sendall(arguments["content"])
        lock.rollback()
        answers = [read_answer(client) for client in sockets]
    assert process.wait(TIMEOUT) == 0
    assert [answer.status_code for answer in answers] == [200] * 12
    stored = connection.execute("SELECT id::text FROM incoming_emails").fetchall()
    assert {row["id"] for row in stored} == {answer.json()["email_id"] for answer in answers}
    assert len(stored) == 12


def blocked(connection: "psycopg.Connection[dict[str, object]]") -> bool:
    waiting = connection.execute(
        "SELECT 1 FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return waiting.fetchone() is not None


@pytest.mark.parametrize("env", ["production", "development"])
def test_logs_hold_no_content_of_emails_and_no_secret(
    services: Services, connection: "psycopg.Connection[dict[str, object]]", env: str
) -> None:
    """Everything that an email or a request holds has the mark, and every path is taken."""
    mark = "xyzzy"
    secret = f"secret-{mark}-{mark}-{mark}-{mark}"
    services.environment.update(
        MAILROOM_ENV=env,
        MAILROOM_LOG_LEVEL="debug",
        MAILROOM_WEBHOOK_SECRETS=f"blue:{secret}",
        MAILROOM_API_TOKEN=f"token-{mark}-{mark}-{mark}-{mark}",
    )

    def marked(**fields: Any) -> dict[str, Any]:
        return email(
            ticket_id=f"ticket-{mark}",
            from_email=f"{mark}@example.com",
            from_name=f"name {mark}",
            body_html=f"<p>{mark}</p>",
            body_text=f"text {mark}",
            **{"subject": f"subject {mark}", "webhook_id": f"id-{mark}", **fields},
        )

    connection.execute(
        "ALTER TABLE incoming_emails ADD CONSTRAINT no_spam CHECK (subject NOT LIKE 'spam%')"
    )
    process = services.start_web()
    wrong_secret = signed(marked(), secret=f"wrong {mark}")
    sent = [
        (200, signed(marked(), secret=secret)),
        (200, signed(marked(subject=f"another {mark}"), secret=secret)),
        (400, signed({"subject": [mark], mark: mark}, secret=secret)),
        (200, signed(f'{{"{mark}'.encode(), secret=secret)),
        (401, wrong_secret),
        (401, with_headers(wrong_secret, **{SIGNATURE_HEADER: mark, TIMESTAMP_HEADER: mark})),
        (415, with_headers(wrong_secret, content_type=f"text/{mark}")),
        (503, signed(marked(subject=f"spam {mark}"), secret=secret)),
    ]
    for status, arguments in sent:
        assert post(services, **arguments).status_code == status
    assert httpx.get(f"{services.url}/{mark}").status_code == 404
    connection.execute("DROP TABLE incoming_emails")
    assert_unavailable(post(services, **signed(marked(webhook_id=None), secret=secret)))
    process.terminate()
    assert process.wait(TIMEOUT) == 0
    log = services.log()
    for event in ("webhook_id_reused", "intake_row_refused", "not_stored", "Shutting down"):
        assert event in log
    for told in (mark, base64.b64encode(mark.encode()).decode(), "Erika", "@example.com"):
        assert told not in log
    if env == "production":
        assert all(isinstance(json.loads(line), dict) for line in log.splitlines())
