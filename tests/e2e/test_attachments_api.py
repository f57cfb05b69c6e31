"""Files are given out over real HTTP: whole, in parts, as downloads; or it is said why not."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import psycopg
import pytest
from support import Services, create_token

from app.attachments.store import AttachmentStore
from app.models.email_attachment import AttachmentState

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
Keep: TypeAlias = Callable[..., dict[str, Any]]
CONTENT = bytes(range(256)) * 4_000


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def api(web: Services) -> Iterator[httpx.Client]:
    """A client with the token of the settings."""
    headers = {"Authorization": "Bearer token"}
    with httpx.Client(base_url=f"{web.url}/api/v1/jobs/", headers=headers) as client:
        yield client


def store(connection: Connection, *files: dict[str, Any]) -> str:
    """Store an email with these files. Returns its id."""
    row = connection.execute(
        "INSERT INTO incoming_emails (from_email) VALUES ('erika@example.com') RETURNING id"
    ).fetchone()
    assert row is not None
    for position, file in enumerate(files):
        columns = {"email": row["id"], "position": position, "url": "https://example.com", **file}
        connection.execute(
            f"INSERT INTO email_attachments ({', '.join(columns)})"
            f" VALUES ({', '.join(['%s'] * len(columns))})",
            list(columns.values()),
        )
    return str(row["id"])


@pytest.fixture
def keep(shared_web: Services, tmp_path: Path) -> Keep:
    """Has the store of the web process keep a content. Returns the columns of its file."""
    folder = Path(shared_web.environment["MAILROOM_HOME"]).absolute() / "attachments"

    def keep(content: bytes = CONTENT, **columns: Any) -> dict[str, Any]:
        source = tmp_path / uuid4().hex
        source.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        asyncio.run(AttachmentStore.from_url(folder.as_uri()).put(source, sha256))
        return {
            "state": "kept",
            "filename": "rechnung.pdf",
            "content_type": "application/pdf",
            "size": len(content),
            "sha256": sha256,
            **columns,
        }

    return keep


def test_a_file_is_given_out_as_a_download_that_no_browser_runs(
    api: httpx.Client, connection: Connection, keep: Keep
) -> None:
    file = keep(filename='../Übersicht \u202e"x".html', content_type="text/html")
    answer = api.get(f"{store(connection, file)}/attachments/0")
    assert answer.status_code == 200
    assert answer.content == CONTENT
    headers = answer.headers
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["content-type"] == "text/html"
    assert headers["content-disposition"] == (
        "attachment; filename=\"Ubersicht _x_.html\"; filename*=UTF-8''%C3%9Cbersicht%20_x_.html"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["etag"] == f'"{file["sha256"]}"'
    assert headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1099", 100, 1_100),
        ("bytes=700000-", 700_000, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=5-99999999999", 5, len(CONTENT)),
    ],
)
def test_a_part_of_it_is_given_out(
    api: httpx.Client, connection: Connection, keep: Keep, asked: str, start: int, end: int
) -> None:
    path = f"{store(connection, keep())}/attachments/0"
    answer = api.get(path, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


def test_a_part_behind_the_end_and_one_of_another_version(
    api: httpx.Client, connection: Connection, keep: Keep
) -> None:
    path = f"{store(connection, keep())}/attachments/0"
    behind = api.get(path, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert behind.status_code == 416
    assert behind.headers["content-range"] == f"bytes */{len(CONTENT)}"
    assert behind.headers["content-type"] == "application/problem+json"
    other = api.get(path, headers={"Range": "bytes=0-4", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, CONTENT)
    etag = other.headers["etag"]
    same = api.get(path, headers={"Range": "bytes=0-4", "If-Range": etag})
    assert (same.status_code, same.content) == (206, CONTENT[:5])
    known = api.get(path, headers={"If-None-Match": f'"another", {etag}'})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == etag


def test_an_empty_file_is_given_out(api: httpx.Client, connection: Connection, keep: Keep) -> None:
    path = f"{store(connection, keep(b''))}/attachments/0"
    answer = api.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.get(path, headers={"Range": "bytes=0-"}).status_code == 416


@pytest.mark.parametrize(
    ("state", "reason", "status", "said"),
    [
        ("pending", None, 409, "pending"),
        ("failed", "timeout", 409, "did not come in time"),
        ("skipped", "too_large", 410, "larger than MAILROOM_ATTACHMENT_MAX_BYTES"),
        ("flagged", "flagged", 410, "Something harmful"),
        ("skipped", "of_a_newer_version", 410, "of_a_newer_version"),
    ],
)
def test_it_is_said_why_there_are_no_bytes(
    api: httpx.Client,
    connection: Connection,
    state: str,
    reason: str | None,
    status: int,
    said: str,
) -> None:
    file = {"state": state, "reason": reason, "detail": "details of it", "claimed_size": 5}
    email_id = store(connection, file)
    answer = api.get(f"{email_id}/attachments/0")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert "details of it" in answer.json()["detail"]
    (item,) = api.get(f"{email_id}/attachments").json()["items"]
    assert (item["state"], item["reason"], item["claimed_size"]) == (state, reason, 5)
    assert said in item["why"] or state == "pending"


def test_what_does_not_exist_was_erased_or_lost_is_told(
    api: httpx.Client, connection: Connection, keep: Keep
) -> None:
    assert api.get(f"{uuid4()}/attachments").status_code == 404
    assert api.get(f"{uuid4()}/attachments/0").status_code == 404
    without = store(connection)
    assert api.get(f"{without}/attachments").json() == {"items": []}
    missing = api.get(f"{without}/attachments/0")
    assert missing.status_code == 404
    assert "no attachment 0" in missing.json()["detail"]
    assert api.get(f"{without}/attachments/-1").status_code in (400, 404)
    connection.execute("UPDATE incoming_emails SET erased_at = now() WHERE id = %s", [without])
    assert api.get(f"{without}/attachments/0").status_code == 410
    lost = store(connection, keep() | {"sha256": "0" * 64})
    answer = api.get(f"{lost}/attachments/0")
    assert answer.status_code == 410
    assert "mailroom attachments verify" in answer.json()["detail"]


def test_the_list_names_each_file_and_holds_no_url(
    api: httpx.Client, connection: Connection, keep: Keep
) -> None:
    url = "https://example.com/a?token=secret"
    first = keep(url=url, claimed_content_type="application/x", claimed_size=9, is_inline=True)
    answer = api.get(f"{store(connection, first, {'state': 'pending'})}/attachments")
    assert answer.status_code == 200
    assert "token" not in answer.text
    one, two = answer.json()["items"]
    assert (one["position"], two["position"]) == (0, 1)
    assert one["size"] == len(CONTENT)
    assert one["sha256"] == first["sha256"]
    assert (one["is_inline"], one["why"], one["claimed_size"]) == (True, None, 9)
    assert (two["state"], two["sha256"]) == (AttachmentState.PENDING, None)
    assert two["next_attempt_at"] is not None


def test_a_token_is_needed(web: Services, connection: Connection, keep: Keep) -> None:
    path = f"{web.url}/api/v1/jobs/{store(connection, keep())}/attachments"
    for url in (path, f"{path}/0"):
        assert httpx.get(url).status_code == 401
        unknown = httpx.get(f"{url}?limit=1", headers={"Authorization": "Bearer token"})
        assert unknown.status_code == 400
    reads = create_token(web, f"reads-{uuid4().hex}")
    assert httpx.get(f"{path}/0", headers=reads).status_code == 200


def test_a_file_is_fetched_again_by_those_who_may_operate(
    web: Services, api: httpx.Client, connection: Connection, keep: Keep
) -> None:
    failed = {"state": "failed", "reason": "timeout", "tries": 5, "detail": "too slow"}
    no_url = {"state": "skipped", "reason": "not_a_url", "url": "cid:1"}
    lost = keep() | {"sha256": "0" * 64}
    path = f"{store(connection, failed, no_url, keep(), lost)}/attachments"
    reads = create_token(web, f"reads-{uuid4().hex}")
    assert api.post(f"{path}/0/fetch", headers=reads).status_code == 403
    for _ in range(2):
        answer = api.post(f"{path}/0/fetch")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["state"], told["reason"], told["tries"]) == ("pending", None, 0)
    refused = api.post(f"{path}/1/fetch")
    assert refused.status_code == 409
    assert "no URL that could be fetched" in refused.json()["detail"]
    # Its link may be dead by now.
    assert api.post(f"{path}/2/fetch").json()["state"] == "kept"
    assert api.post(f"{path}/3/fetch").json()["state"] == "pending"
    assert api.post(f"{path}/4/fetch").status_code == 404
    assert api.post(f"{uuid4()}/attachments/0/fetch").status_code == 404
    assert api.post(f"{path}/0/fetch", params={"force": "1"}).status_code == 400


def test_the_row_of_an_email_is_free_while_a_slow_store_is_read(
    services: Services, connection: Connection
) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    class SlowBucket(BaseHTTPRequestHandler):
        """Has nothing, and is slow to say so."""

        def do_GET(self) -> None:
            is_asked.set()
            may_answer.wait()
            self.send_error(404)

        def log_message(self, *_arguments: object) -> None:
            pass

    email_id = store(connection, {"state": "kept", "sha256": "0" * 64})
    connection.execute(
        """UPDATE incoming_emails SET attachment_urls = '[{"url": "https://example.com"}]'"""
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowBucket) as server, ThreadPoolExecutor(2) as pool:
        pool.submit(server.serve_forever)
        services.start_web(
            MAILROOM_ATTACHMENT_STORE="s3://bucket",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}",
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_REGION="us-east-1",
        )
        asked = pool.submit(
            httpx.post,
            f"{services.url}/api/v1/jobs/{email_id}/attachments/0/fetch",
            headers={"Authorization": "Bearer token"},
            timeout=60,
        )
        try:
            assert is_asked.wait(60)
            # As a worker does that extends its lease.
            connection.execute("SELECT FROM incoming_emails FOR UPDATE NOWAIT")
        finally:
            may_answer.set()
            server.shutdown()
        assert asked.result().json()["state"] == "pending"
