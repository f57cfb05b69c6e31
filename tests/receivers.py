"""Who is told of alarms in tests: a web server and a mail server, over real TLS, in the event loop
of the test. Their certificates come from the authority of `fake_zendesk`."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import attrs
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from fake_zendesk import authority, certificate

USER, PASSWORD = "mailroom", "p/a:ss@word"


@attrs.frozen
class Posted:
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: bytes


@attrs.define
class Receiver:
    """Answers each POST with the next of its statuses, the last one from then on."""

    statuses: list[int] = attrs.field(factory=lambda: [200])
    posted: list[Posted] = attrs.field(factory=list)
    port: int = 0

    def url(self, path: str = "/hook") -> str:
        return f"https://localhost:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            cased = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in head[1:-2]}
            self.posted.append(Posted(head[0].split(" ")[1], cased, body))
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nno" % status)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def running_receiver(folder: Path, **fields: Any) -> AsyncIterator[Receiver]:
    """A receiver at `https://localhost:PORT`."""
    receiver = Receiver(**fields)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=_context())
    receiver.port = server.sockets[0].getsockname()[1]
    write_authority(folder)
    async with server:
        yield receiver


@attrs.define
class MailReceiver:
    """Keeps what it gets."""

    port: int = 0
    got: list[Message] = attrs.field(factory=list)
    to: list[list[str]] = attrs.field(factory=list)
    answer: str = "250 OK"
    is_encrypted: list[bool] = attrs.field(factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.got.append(message_from_bytes(envelope.content or b"", policy=default))
        self.to.append(envelope.rcpt_tos)
        self.is_encrypted.append(session.ssl is not None)
        return self.answer


@contextlib.asynccontextmanager
async def running_mail(
    folder: Path, *, encryption: str = "starttls", has_login: bool = True
) -> AsyncIterator[MailReceiver]:
    """A mail server at localhost; `encryption` is `starttls`, `tls` or `none`."""
    receiver = MailReceiver()

    def authenticate(server: SMTP, *args: Any) -> AuthResult:
        given = args[-1]
        is_right = isinstance(given, LoginPassword) and (
            (given.login.decode(), given.password.decode()) == (USER, PASSWORD)
        )
        return AuthResult(success=is_right, handled=False)

    def make() -> SMTP:
        return SMTP(
            receiver,
            hostname="localhost",
            tls_context=_context() if encryption == "starttls" else None,
            require_starttls=encryption == "starttls",
            authenticator=authenticate if has_login else None,
            auth_required=has_login,
            auth_require_tls=encryption == "starttls",
        )

    server = await asyncio.get_running_loop().create_server(
        make, "127.0.0.1", 0, ssl=_context() if encryption == "tls" else None
    )
    receiver.port = server.sockets[0].getsockname()[1]
    write_authority(folder)
    async with server:
        yield receiver


def write_authority(folder: Path) -> Path:
    """The file of the authority that signed their certificates."""
    path = folder / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return path


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate("localhost").configure_cert(context)
    return context
