"""What a handler in a worker has at hand: the files of its email, and a client that calls nobody by
accident."""

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from support import make_settings
from test_processing import Pool, process, store

from app.attachments.store import AttachmentStore
from app.handlers.context import Context
from app.handlers.seam import Email
from app.outbound.errors import AddressNotAllowedError, HostNotAllowedError
from app.outbound.for_handlers import DryRunError, make_client
from app.outbound.rules import Rules

CONTENT = b"%PDF-1.7 a bill " * 100_000


class Answer(BaseHTTPRequestHandler):
    """Answers with what was posted."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("location", "http://127.0.0.2/")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """A system of one's own, on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def client_for(*internal: str, is_dry_run: bool = False) -> httpx2.AsyncClient:
    """A handler's client where these hosts of the own network are named."""
    settings = make_settings(outbound_internal_hosts=",".join(internal))
    return make_client(Rules.from_settings(settings, hosts=None), is_dry_run=is_dry_run)


async def keep(pool: Pool, folder: Path, email_id: UUID) -> None:
    """Keep a file of an email, and tell of one that is not kept."""
    source = folder / uuid4().hex
    source.write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    await AttachmentStore.from_url(folder.as_uri()).put(source, sha256)
    await pool.execute(
        "INSERT INTO email_attachments"
        " (email, position, url, filename, content_type, size, sha256, state, reason)"
        " VALUES ($1, 0, '', 'bill.pdf', 'application/pdf', $2, $3, 'kept', NULL),"
        " ($1, 1, '', 'huge.zip', NULL, NULL, NULL, 'skipped', 'too_large')",
        *(email_id, len(CONTENT), sha256),
    )


async def test_a_handler_reads_the_files_of_its_email(pool: Pool, tmp_path: Path) -> None:
    async def handle(email: Email) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        async for file in email.attachments:
            if file.is_kept:
                sha = hashlib.sha256()
                async for piece in file.open():
                    sha.update(piece)
                assert sha.hexdigest() == file.sha256
                seen[file.safe_name] = [file.content_type, len(await file.read())]
            else:
                seen[file.safe_name] = [file.reason, file.why]
        return seen

    def in_a_thread(email: Email, context: Context) -> dict[str, Any]:
        bill, huge = context.run(email.attachments.all())
        return {bill.safe_name: len(context.run(bill.read())), "why": huge.reason}

    email_id = await store(pool)
    await keep(pool, tmp_path, email_id)
    row = await process(pool, handle, email_id, attachment_store=tmp_path.as_uri())
    assert row["extracted_data"] is not None, row["processing_error"] or row["attempt_errors"]
    assert '"bill.pdf": ["application/pdf", 1600000]' in row["extracted_data"]
    assert '"huge.zip": ["too_large", "It is larger than ' in row["extracted_data"]
    await pool.execute("UPDATE incoming_emails SET processing_status = 'queued'")
    row = await process(pool, in_a_thread, email_id, attachment_store=tmp_path.as_uri())
    assert row["extracted_data"] == '{"bill.pdf": 1600000, "why": "too_large"}'


async def test_an_email_without_files_has_none(pool: Pool) -> None:
    async def handle(email: Email) -> dict[str, Any]:
        return {"files": len(await email.attachments.all())}

    row = await process(pool, handle, await store(pool))
    assert row["extracted_data"] == '{"files": 0}'


async def test_a_handler_calls_the_hosts_that_the_settings_name(pool: Pool, url: str) -> None:
    async def handle(email: Email, context: Context) -> dict[str, Any]:
        answer = await context.http.post(f"{url}/cases", content=b"a case")
        return {"status": answer.status_code, "text": answer.text}

    def in_a_thread(email: Email, context: Context) -> dict[str, Any]:
        return {"text": context.run(context.http.post(f"{url}/cases", content=b"a case")).text}

    named = {"outbound_internal_hosts": url}
    row = await process(pool, handle, await store(pool), **named)
    assert row["extracted_data"] == '{"status": 200, "text": "a case"}', row["attempt_errors"]
    row = await process(pool, in_a_thread, await store(pool), **named)
    assert row["extracted_data"] == '{"text": "a case"}', row["attempt_errors"]
    row = await process(pool, handle, await store(pool))
    assert "name it in MAILROOM_OUTBOUND_INTERNAL_HOSTS" in row["attempt_errors"]


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/", "https://127.0.0.1/", "https://[::1]/"])
async def test_nobody_else_of_the_own_network_is_called(target: str) -> None:
    async with client_for() as client:
        with pytest.raises(
            (HostNotAllowedError, AddressNotAllowedError),
            match=r"MAILROOM_OUTBOUND_INTERNAL_HOSTS, such as",
        ):
            await client.get(target)


async def test_a_redirect_goes_through_the_rules_again(url: str) -> None:
    async with client_for(url) as client:
        assert (await client.get(f"{url}/away")).status_code == 302
        with pytest.raises((HostNotAllowedError, AddressNotAllowedError), match=r"127\.0\.0\.2"):
            await client.get(f"{url}/away", follow_redirects=True)


async def test_a_dry_run_changes_nothing_elsewhere(url: str) -> None:
    async with client_for(url, is_dry_run=True) as client:
        assert (await client.get(url)).status_code == 200
        with pytest.raises(DryRunError, match="would send POST to 127"):
            await client.post(url)
        with pytest.raises(DryRunError):
            await client.request("delete", url)


async def test_a_client_of_the_library_is_what_a_handler_gets() -> None:
    async with client_for() as client:
        assert isinstance(client, httpx2.AsyncClient)
        assert not client.follow_redirects


async def test_a_handler_in_a_thread_is_told_that_its_time_is_over(pool: Pool) -> None:
    seen: list[tuple[bool, float]] = []

    def handle(email: Email, context: Context) -> None:
        seen.append((context.is_cancelled, context.seconds_left))
        while not context.is_cancelled:
            time.sleep(0.001)
        seen.append((context.is_cancelled, context.seconds_left))

    row = await process(pool, handle, await store(pool), handler_timeout_seconds=0.1)
    assert row["processing_status"] == "queued"
    assert "did not finish within 0.1 seconds" in row["attempt_errors"]
    (began, left), (ended, none_left) = seen
    assert (began, ended) == (False, True)
    assert 0 < left <= 0.1
    assert none_left == 0


async def test_a_handler_in_a_thread_keeps_its_claim_until_it_has_ended(pool: Pool) -> None:
    is_told, may_end = threading.Event(), threading.Event()

    def handle(email: Email, context: Context) -> None:
        while not context.is_cancelled:
            time.sleep(0.001)
        is_told.set()
        assert may_end.wait(60)

    email_id = await store(pool)
    running = asyncio.create_task(process(pool, handle, email_id, handler_timeout_seconds=0.05))
    assert await asyncio.to_thread(is_told.wait, 60)
    # Whoever let go of the thread would have recorded that by now.
    await asyncio.wait({running}, timeout=0.2)
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    assert row["processing_status"] == "processing"
    may_end.set()
    assert (await running)["processing_status"] == "queued"


async def test_a_name_that_is_not_known_is_an_outage_as_of_any_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    async with make_client(Rules(hosts=None)) as client:
        with pytest.raises(httpx2.ConnectError, match="is not known"):
            await client.get("https://crm.example/")
