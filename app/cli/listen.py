"""`mailroom listen`: a receiver of deliveries for development, which shows what comes and checks
its signature."""

import json
import threading
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import click
from standardwebhooks import Webhook, WebhookVerificationError

from app.cli.printing import say, say_lines
from app.errors import MailroomError
from app.settings import get_settings

HOST = "127.0.0.1"
PORT = 9000
LARGEST_BODY = 64 * 1024 * 1024
CHECK = "deliveries.check"


class ListenError(MailroomError):
    """It cannot listen."""


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    help="`whsec_...` by which deliveries are signed. [default: MAILROOM_SYNC_SECRETS]",
)
@click.option(
    "--answer",
    type=click.IntRange(200, 599),
    default=200,
    show_default=True,
    help="Answer each delivery with this status, to see what becomes of it.",
)
@click.option("--body", "shows_body", is_flag=True, help="Print the whole JSON of each delivery.")
def listen(port: int, secrets: tuple[str, ...], answer: int, shows_body: bool) -> None:
    """Receive deliveries on this machine, show them, and check their signatures.

    Have Mailroom deliver here with MAILROOM_SYNC_URL=http://127.0.0.1:9000/ and, for `mailroom
    reconcile`, MAILROOM_SYNC_CHECK_URL with the same address: it says which deliveries it has had
    since it was started. One whose signature is wrong is answered 401. For development alone.
    """
    known = secrets or get_settings().sync_secrets
    if not known:
        raise ListenError(
            "there is no secret to check signatures by: set MAILROOM_SYNC_SECRETS, or say --secret"
        )
    receiver = Receiver([_webhook(secret) for secret in known], answer, shows_body)

    try:
        server = _Server(port, receiver)
    except OSError as error:
        raise ListenError(
            f"cannot listen on port {port} ({error.strerror}): say another with --port"
        ) from error
    with server:
        say(f"Listening for deliveries: MAILROOM_SYNC_URL=http://{HOST}:{server.server_port}/")
        server.serve_forever()


@attrs.define
class Receiver:
    """What was received, and how it is answered."""

    webhooks: list[Webhook]
    answer: int
    shows_body: bool
    _taken: set[str] = attrs.field(factory=set)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def receive(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Show a request. Returns the status and the JSON of its answer."""
        wrong = self._wrong_with(headers, body)
        if wrong is not None:
            _say(f"REFUSED: {wrong}")
            return 401, {"error": wrong}
        told = json.loads(body)
        with self._lock:
            if isinstance(told, dict) and told.get("type") == CHECK:
                has = [one for one in told["ids"] if one in self._taken]
                _say(f"asked which of {len(told['ids'])} deliveries are here: {len(has)}")
                return 200, {"has": has}
            for event in told if isinstance(told, list) else [told]:
                self._show(event)
        return self.answer, {}

    def _show(self, event: dict[str, Any]) -> None:
        data = event.get("data") or {}
        again = ", again" if event["id"] in self._taken else ""
        answered = "" if self.answer == 200 else f", answered {self.answer}"
        _say(
            f"{event['type']}  {event['id']}  ticket {data.get('ticket_id', '-')}"
            f"  signature right{again}{answered}"
        )
        if self.shows_body:
            say_lines(json.dumps(event, indent=2, ensure_ascii=False))
        if 200 <= self.answer < 300:
            self._taken.add(event["id"])

    def _wrong_with(self, headers: dict[str, str], body: bytes) -> str | None:
        said = "there is no secret"
        for webhook in self.webhooks:
            try:
                webhook.verify(body, headers)
            except (WebhookVerificationError, ValueError, RecursionError) as error:
                said = f"signature: {error}"
            else:
                return None
        return said


class _Server(ThreadingHTTPServer):
    def __init__(self, port: int, receiver: Receiver) -> None:
        super().__init__((HOST, port), _Handler)
        self.receiver = receiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True
            self._respond(413, {"error": f"a body of at most {LARGEST_BODY} bytes is expected"})
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(length))
        self._respond(*self.server.receiver.receive(headers, body))

    def log_message(self, *_: object) -> None:
        """What there is to tell is shown by the receiver."""

    def _respond(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode() if status != HTTPStatus.NO_CONTENT else b""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _webhook(secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except (RuntimeError, ValueError) as error:
        raise ListenError("a secret has to be `whsec_` and bytes in base64") from error


def _say(line: str) -> None:
    say(f"{datetime.now(UTC).isoformat(timespec='seconds')}  {line}")
