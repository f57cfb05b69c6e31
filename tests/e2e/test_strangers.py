"""What strangers send without end, beside which email is taken: bodies, heads, connections."""

import contextlib
import re
import select
import socket
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from databases import Databases
from support import Services, email, signed, wait_until

from app.http.bodies import LARGEST_BODY
from app.http.protocol import LARGEST_HEAD, MOST_FIELDS, MOST_PIPELINED
from app.intake.openapi import WEBHOOK_PATH

MIB = 1024 * 1024
LOGIN = "/admin/public/login/"
HOST = "Host: localhost\r\n"
# What the process may grow by; without bounds it grew by hundreds.
FEW_BYTES = 64 * MIB


@pytest.fixture(scope="module")
def web(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    url = databases.create(migrated=True)
    running = Services(url, tmp_path_factory.mktemp("web"))
    running.start_web()
    yield running
    running.end()
    databases.drop(url)


@pytest.fixture
def crowd(web: Services) -> Iterator[contextlib.ExitStack]:
    """Connections of strangers, which are closed in the end."""
    with contextlib.ExitStack() as crowd:
        yield crowd


def connect(web: Services) -> socket.socket:
    parts = urlsplit(web.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def post_head(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def send_while_taken(connection: socket.socket, data: bytes) -> int:
    """Send until it is taken no more or answered. Returns how much went."""
    connection.setblocking(False)
    sent = 0
    while sent < len(data):
        readable, writable, _ = select.select([connection], [connection], [], 2)
        if readable or not writable:
            break
        try:
            sent += connection.send(data[sent : sent + 2**18])
        except OSError:
            break
    connection.settimeout(60)
    return sent


def read_answer(connection: socket.socket) -> tuple[int, str]:
    """The status and the media type; it is a problem with its status in words."""
    response = HTTPResponse(connection)
    response.begin()
    content = httpx.Response(200, content=response.read())
    assert content.json()["title"] == HTTPStatus(response.status).phrase
    return response.status, response.headers["content-type"]


def memory_of(web: Services) -> int:
    (process,) = web.processes
    return int(psutil.Process(process.pid).memory_info().rss)


def post_small(web: Services) -> int:
    """Post a signed email of some hundred bytes. Returns the status."""
    content = {"ticket_id": "1", "from_email": "erika@example.com", "subject": email()["subject"]}
    return httpx.post(web.url + WEBHOOK_PATH, **signed(content), timeout=60).status_code


def test_signed_email_is_taken_beside_large_bodies_of_strangers(
    web: Services, crowd: contextlib.ExitStack
) -> None:
    for _ in range(6):
        connection = crowd.enter_context(connect(web))
        connection.sendall(post_head(WEBHOOK_PATH, f"Content-Length: {10 * MIB}"))
        send_while_taken(connection, bytes(10 * MIB - 1))
    assert [post_small(web) for _ in range(5)] == [200] * 5
    # Their deadline passes, and what they held is free again.
    body = email(body_text="a" * 9 * MIB)
    wait_until(
        lambda: httpx.post(web.url + WEBHOOK_PATH, **signed(body), timeout=60).status_code == 200
    )


@pytest.mark.parametrize(
    "path", [LOGIN, "/admin/assets/x", WEBHOOK_PATH, "/api/v1/jobs/retry", "/nothing"]
)
def test_unfinished_bodies_are_bounded_on_every_route(
    web: Services, crowd: contextlib.ExitStack, path: str
) -> None:
    assert post_small(web) == 200
    before = memory_of(web)
    head = post_head(path, "Transfer-Encoding: chunked", "Authorization: Bearer token")
    for _ in range(250):
        connection = crowd.enter_context(connect(web))
        connection.sendall(head)
        send_while_taken(connection, b"%x\r\n" % MIB + bytes(MIB - 1))
    assert memory_of(web) - before < FEW_BYTES
    assert post_small(web) == 200


@pytest.mark.parametrize(
    ("begin", "repeated"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"GET / HTTP/1.1\r\nX", b"a"),
        (b"GET /", b"a"),
        (b"GET / HTTP/1.1\r\n", b"a: " + b"b" * 8_000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\n", b"a:\r\n"),
        (post_head(WEBHOOK_PATH, "Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\n", b"a:b\r\n"),
        (post_head(WEBHOOK_PATH, "Transfer-Encoding: chunked") + b"1;", b"a"),
        (b"", b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"),
        (b"", b"\r\n"),
    ],
    ids=[
        *("value", "name", "target", "large fields", "many fields", "trailers", "extension"),
        *("pipelined", "empty lines"),
    ],
)
def test_heads_without_end_hold_no_memory(web: Services, begin: bytes, repeated: bytes) -> None:
    assert post_small(web) == 200
    before = memory_of(web)
    data = repeated * (2 * MIB // len(repeated))
    sent = 0
    with connect(web) as connection:
        connection.sendall(begin)
        for _ in range(100):
            went = send_while_taken(connection, data)
            sent += went
            if went < len(data):
                break
        assert memory_of(web) - before < FEW_BYTES
    assert sent < 150 * MIB
    assert post_small(web) == 200


@pytest.mark.parametrize(
    "headers",
    [
        "".join(f"X-{n}: {'a' * 1_000}\r\n" for n in range(70)),
        "X: " + "a" * LARGEST_HEAD + "\r\n",
        "".join(f"X-{n}: a\r\n" for n in range(MOST_FIELDS)),
    ],
    ids=["many", "one", "fields"],
)
@pytest.mark.parametrize("before", ["", f"GET /health/live HTTP/1.1\r\n{HOST}\r\n"])
def test_too_large_a_head_is_431(web: Services, headers: str, before: str) -> None:
    request = f"{before}GET /health/live HTTP/1.1\r\n{HOST}{headers}\r\n".encode()
    with connect(web) as connection:
        connection.sendall(request)
        if before:
            # The one before is answered; what follows it is no reason to lose that answer.
            assert connection.recv(12) == b"HTTP/1.1 200"
        else:
            assert read_answer(connection) == (431, "application/problem+json")


def test_a_head_of_the_largest_size_is_taken(web: Services) -> None:
    headers = {f"x-{n}": "a" * 1_000 for n in range(60)}
    answer = httpx.get(f"{web.url}/health/live", headers=headers)
    assert answer.status_code == 200


def test_a_few_pipelined_requests_are_answered_in_order(web: Services) -> None:
    paths = ["/health/live", "/nothing"] * (MOST_PIPELINED // 2)
    with connect(web) as connection:
        connection.sendall(b"".join(f"GET {p} HTTP/1.1\r\n{HOST}\r\n".encode() for p in paths))
        told = b""
        while len(statuses := re.findall(rb"HTTP/1.1 (\d+)", told)) < len(paths):
            received = connection.recv(2**16)
            assert received, told
            told += received
    assert statuses == [b"200", b"404"] * (MOST_PIPELINED // 2)


def test_what_is_no_http_is_told_so(web: Services) -> None:
    with connect(web) as connection:
        connection.sendall(b"HELO mail.example.com\r\n\r\n")
        assert read_answer(connection) == (400, "application/problem+json")


@pytest.mark.parametrize("kind", ["close", "keep-alive"])
@pytest.mark.parametrize(
    ("path", "status", "size"),
    [
        (WEBHOOK_PATH, 413, 11 * MIB),
        (LOGIN, 413, LARGEST_BODY + MIB),
        ("/api/v1/jobs/retry", 401, MIB),
        ("/nothing", 404, MIB),
        ("/health/live", 405, MIB),
    ],
)
def test_the_rest_of_what_is_refused_is_read(
    web: Services, path: str, status: int, size: int, kind: str
) -> None:
    """Else TCP takes our answer back, and a proxy makes a 502 of it."""
    with connect(web) as connection:
        connection.sendall(post_head(path, f"Connection: {kind}", f"Content-Length: {size}"))
        # The answer is under way, and a closed connection would be by now.
        assert select.select([connection], [], [], 60)[0]
        connection.sendall(bytes(size))
        assert read_answer(connection) == (status, "application/problem+json")
        if kind == "keep-alive":
            connection.sendall(f"GET /health/live HTTP/1.1\r\n{HOST}\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
        else:
            assert connection.recv(1) == b""


def test_what_is_thrown_away_is_bounded(web: Services) -> None:
    with connect(web) as connection:
        connection.sendall(post_head("/nothing", f"Content-Length: {1024 * MIB}"))
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 1024 * MIB:
                sent += connection.send(bytes(MIB))
    assert sent < 512 * MIB
    assert post_small(web) == 200
