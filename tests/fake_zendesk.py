"""A Zendesk account and its CDN for tests, over real HTTP and TLS, in the event loop of the test.

Each file is a `Row`: how its URL behaves. What was asked is written down, so that tests can tell
who got the token. Certificates come from an authority that is made once a run.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any

import attrs
import trustme
from support import WAIT_SECONDS

EMAIL = "agent@example.com"
TOKEN = "token-of-the-zendesk-api"
AUTHORIZATION = "Basic " + base64.b64encode(f"{EMAIL}/token:{TOKEN}".encode()).decode()
# Two names of this machine, so that the account and the CDN are two hosts without any DNS.
ACCOUNT_HOST = "localhost"
CDN_HOST = "127.0.0.1"

LOGIN_PAGE = b"""<!DOCTYPE html>
<html><head><title>Sign in</title></head><body>
<form action="/access/login" method="post"><input type="password" name="user[password]"></form>
</body></html>
"""

Respond = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@attrs.frozen
class Asked:
    """One request that came in."""

    host: str
    method: str
    path: str
    query: str
    headers: dict[str, str]

    @property
    def has_token(self) -> bool:
        return self.headers.get("authorization") == AUTHORIZATION


@attrs.define
class Row:
    """A file of the account, and how it behaves."""

    content: bytes = b""
    content_type: str = "application/octet-stream"
    redirect: str | None = None
    """Where the account sends whoever shows the token, in place of the CDN."""
    account: Respond | None = None
    """What the account answers, in place of a redirect."""
    cdn: Respond | None = None
    """What the CDN answers, in place of the content."""
    scan: str = "malware_not_found"
    api: dict[str, Any] = attrs.field(factory=dict)
    """Further fields of the record in the API."""
    created_at: str = "2026-11-01T10:00:00Z"


@cache
def authority() -> trustme.CA:
    """Who signs the certificates of this run."""
    return trustme.CA()


@cache
def certificate(*names: str) -> trustme.LeafCert:
    """A certificate for hosts, made once a run."""
    return authority().issue_cert(*names)


@attrs.define
class FakeZendesk:
    """The account `https://localhost:PORT`, and a CDN at `https://127.0.0.1:PORT`."""

    folder: Path
    rows: dict[str, Row] = attrs.field(factory=dict)
    asked: list[Asked] = attrs.field(factory=list)
    api: Respond | None = None
    """What the API answers, in place of the comments."""
    links: int = 0
    """Temporary links that were made."""
    _ports: dict[str, int] = attrs.field(factory=dict)
    _contexts: dict[str, ssl.SSLContext] = attrs.field(factory=dict)
    _tasks: set["asyncio.Task[None]"] = attrs.field(factory=set)

    @property
    def account_url(self) -> str:
        return f"https://{ACCOUNT_HOST}:{self._ports[ACCOUNT_HOST]}"

    @property
    def cdn_url(self) -> str:
        return f"https://{CDN_HOST}:{self._ports[CDN_HOST]}"

    @property
    def ca_file(self) -> Path:
        """Of the authority that signed its certificates."""
        return self.folder / "ca.pem"

    @property
    def settings(self) -> dict[str, Any]:
        """What `make_settings` needs so that this is the account."""
        return {
            "zendesk_url": self.account_url,
            "zendesk_email": EMAIL,
            "zendesk_token": TOKEN,
            "attachment_hosts": (CDN_HOST,),
            "outbound_ca_file": self.ca_file,
            "outbound_open_loopback": True,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same, for a process."""
        return {
            "MAILROOM_ZENDESK_URL": self.account_url,
            "MAILROOM_ZENDESK_EMAIL": EMAIL,
            "MAILROOM_ZENDESK_TOKEN": TOKEN,
            "MAILROOM_ATTACHMENT_HOSTS": CDN_HOST,
            "MAILROOM_OUTBOUND_CA_FILE": str(self.ca_file),
            "MAILROOM_OUTBOUND_OPEN_LOOPBACK": "true",
        }

    def add(self, name: str, row: Row | None = None, **fields: Any) -> str:
        """Add a file; returns its URL as an email names it."""
        self.rows[name] = row or Row(**fields)
        return f"{self.account_url}/attachments/token/{name}/?name={name}"

    def serve_at(self, name: str) -> None:
        """Give the CDN a certificate for another name, too."""
        certificate(CDN_HOST, name).configure_cert(self._contexts[CDN_HOST])

    def files_asked(self, host: str) -> list[Asked]:
        """The requests for files that reached a host, without those to the API."""
        return [a for a in self.asked if a.host == host and not a.path.startswith("/api/")]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(
            ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            try:
                while not writer.is_closing():
                    asked = await _read(reader)
                    self.asked.append(asked)
                    await self._answer(asked, writer)
                    await writer.drain()
            finally:
                self._tasks.discard(task)
                writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        name = asked.path.rstrip("/").rpartition("/")[2]
        row = self.rows.get(name)
        if asked.path == "/api/v2/users/me.json":
            # Without the token it tells of a user who is nobody.
            me = {"id": 1, "role": "agent"} if asked.has_token else {"id": None, "role": "end-user"}
            body = json.dumps({"user": me}).encode()
            answer(writer, 200, body, content_type="application/json")
        elif asked.path.startswith("/api/v2/tickets/"):
            await self._answer_api(asked, writer)
        elif row is None:
            answer(writer, 404, b"not here")
        elif asked.host != ACCOUNT_HOST:
            # As seen of the real one: it wants nothing but its own link.
            if "authorization" in asked.headers:
                answer(writer, 403, b"")
            elif row.cdn is not None:
                await row.cdn(asked, writer)
            else:
                answer(writer, 200, row.content, content_type=row.content_type)
        elif row.account is not None:
            await row.account(asked, writer)
        elif not asked.has_token:
            answer(writer, 200, LOGIN_PAGE, content_type="text/html; charset=utf-8")
        else:
            self.links += 1
            link = f"{self.cdn_url}/attachment/{name}?token=temporary-{self.links}"
            answer(writer, 302, b"", location=row.redirect or link)

    async def _answer_api(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if not asked.has_token:
            answer(writer, 401, b'{"error": "Couldn\'t authenticate you"}')
        elif self.api is not None:
            await self.api(asked, writer)
        else:
            self.answer_comments(writer, self.comments(), {"has_more": False})

    def comments(self) -> list[dict[str, Any]]:
        """All that the API says of a ticket, as Zendesk's own answers look."""
        return [self._comment(name, row) for name, row in self.rows.items()]

    def answer_comments(
        self, writer: asyncio.StreamWriter, comments: list[dict[str, Any]], meta: dict[str, Any]
    ) -> None:
        """Answer one page of comments."""
        body = json.dumps({"comments": comments, "meta": meta}).encode()
        answer(writer, 200, body, content_type="application/json")

    def _comment(self, name: str, row: Row) -> dict[str, Any]:
        url = f"{self.account_url}/attachments/token/{name}/?name={name}"
        attachment = {
            "id": len(name),
            "file_name": name,
            "content_url": url,
            "mapped_content_url": url,
            "content_type": row.content_type,
            "size": len(row.content),
            "inline": False,
            "deleted": False,
            "malware_access_override": False,
            "malware_scan_result": row.scan,
            "thumbnails": [],
            **row.api,
        }
        return {"id": 1, "created_at": row.created_at, "attachments": [attachment]}


@contextlib.asynccontextmanager
async def running_zendesk(folder: Path) -> AsyncIterator[FakeZendesk]:
    """A fake account that answers while the block runs; the folder gets its authority's file."""
    zendesk = FakeZendesk(folder)
    authority().cert_pem.write_to_path(zendesk.ca_file)
    servers = []
    for host in (ACCOUNT_HOST, CDN_HOST):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate(host).configure_cert(context)
        server = await asyncio.start_server(zendesk.serve, "127.0.0.1", 0, ssl=context)
        zendesk._contexts[host] = context
        zendesk._ports[host] = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield zendesk
    finally:
        for server in servers:
            server.close()
        for task in zendesk._tasks:
            task.cancel()
        await asyncio.gather(*zendesk._tasks, return_exceptions=True)


@contextlib.contextmanager
def zendesk_in_thread(folder: Path) -> Iterator[FakeZendesk]:
    """The same for tests without an event loop of their own, such as those of processes."""
    started: Queue[FakeZendesk | BaseException] = Queue()
    loop = asyncio.new_event_loop()
    is_over = asyncio.Event()

    async def run() -> None:
        try:
            async with running_zendesk(folder) as zendesk:
                started.put(zendesk)
                await is_over.wait()
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    zendesk = started.get(timeout=WAIT_SECONDS)
    if isinstance(zendesk, BaseException):
        raise zendesk
    try:
        yield zendesk
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join(WAIT_SECONDS)
        loop.close()


def answer(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    *,
    content_type: str = "text/plain",
    **headers: str,
) -> None:
    """Write a whole answer; underscores in names of headers are dashes."""
    begin(writer, status, content_type=content_type, content_length=str(len(body)), **headers)
    writer.write(body)


def begin(writer: asyncio.StreamWriter, status: int, **headers: str) -> None:
    """Write the head of an answer."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"date: {now}", *lines])
    writer.write(f"{head}\r\n\r\n".encode())


async def drip(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for ever."""
    begin(writer, 200, content_length="1000000")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A stream without an end and without a length."""
    begin(writer, 200, transfer_encoding="chunked")
    await _send_for_ever(writer, b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


async def huge(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """It says that it has a terabyte."""
    begin(writer, 200, content_length=str(10**12))


async def too_short(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Fewer bytes than it said."""
    begin(writer, 200, content_length="1000", content_type="application/pdf")
    writer.write(b"%PDF-1.7 and no more")
    await writer.drain()
    writer.close()


async def endless_head(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Headers without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await _send_for_ever(writer, b"x-more: " + b"x" * 10_000 + b"\r\n")


def status(code: int, **headers: str) -> Respond:
    """Answers of nothing but a status and headers, such as 410, or 429 with `retry_after`."""

    async def respond(asked: Asked, writer: asyncio.StreamWriter) -> None:
        answer(writer, code, b"", **headers)

    return respond


def page(content: bytes, **headers: str) -> Respond:
    """Answers with content, such as another page than the file."""

    async def respond(asked: Asked, writer: asyncio.StreamWriter) -> None:
        answer(writer, 200, content, **headers)

    return respond


async def _send_for_ever(writer: asyncio.StreamWriter, block: bytes) -> None:
    while not writer.is_closing():
        writer.write(block)
        await writer.drain()
        # `drain` alone may never let the others run.
        await asyncio.sleep(0)


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _version = head[0].split(" ")
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in head[1:])
        if name
    }
    path, _, query = target.partition("?")
    return Asked(headers["host"].partition(":")[0], method, path, query, headers)
