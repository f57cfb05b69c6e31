"""How fast the webhook route takes email, with the database and without.

    python -m benchmarks intake

One web process, 32 connections that each wait for their answer, signed bodies of about 1 KB. The
variants take turns, so that a noisy machine disturbs them alike:

bare            an ASGI app that reads the body and answers: what the server and the client can do
without         the webhook route, its rows thrown away where the group commit would store them
with            the webhook route as it is: each 200 after a durable commit

The embedded PostgreSQL is used, in a folder that is removed afterwards, unless DATABASE_URL names a
server. The database has to be one to fill with rubbish.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import uvicorn
import uvloop
from litestar import Litestar
from litestar.types import Receive, Scope, Send

from app.cli.listener import listen
from app.cli.web import server_config
from app.intake.email_row import EmailRow
from app.intake.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from app.intake.writer import Admission, EmailWriter
from app.main import create_app
from app.settings import get_settings

SECRET = "a secret of the benchmark"
CONNECTIONS = 32
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
VARIANTS = ("bare", "without", "with")
TEXT = "Guten Tag, mein Päckchen ist noch nicht da. Können Sie bitte nachsehen, wo es steckt? "


def make_request(port: int) -> bytes:
    """One signed webhook, as bytes on the wire."""
    number = uuid4().hex
    body = json.dumps(
        {
            "ticket_id": "35436",
            "from_email": f"erika-{number}@example.com",
            "from_name": "Erika Mustermann",
            "subject": "Wo bleibt mein Päckchen?",
            "body_text": TEXT * 7,
            "received_at": "2026-11-23T14:05:09Z",
            "webhook_id": number,
            "attachments": [{"url": f"https://example.zendesk.com/attachments/{number}"}],
        },
        ensure_ascii=False,
    ).encode()
    timestamp = datetime.now(UTC).isoformat()
    lines = [
        "POST /api/v1/zendesk/webhook HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        f"{SIGNATURE_HEADER}: {sign(SECRET, timestamp, body)}",
        f"{TIMESTAMP_HEADER}: {timestamp}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client(asyncio.Protocol):
    """One connection: posts the next webhook when the last one is answered."""

    def __init__(self, requests: Iterator[bytes], done: "asyncio.Future[None]") -> None:
        self._requests = requests
        self._done = done

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end_of_head, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end_of_head or not length or len(body) < int(length[1]):
            return
        if head.startswith(b"HTTP/1.1 200"):
            self._send()
        else:
            self._done.set_exception(RuntimeError(self._answer.decode(errors="replace")))
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        self._answer = b""
        request = next(self._requests, None)
        if request is None:
            self._done.set_result(None)
            self._transport.close()
        else:
            self._transport.write(request)


async def post_all(port: int, requests: list[bytes]) -> float:
    """Post the webhooks over the connections. Returns how many were answered in a second."""
    loop = asyncio.get_running_loop()
    line = iter(requests)
    done = [loop.create_future() for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for future in done:
        await loop.create_connection(lambda f=future: Client(line, f), "127.0.0.1", port)
    await asyncio.gather(*done)
    return len(requests) / (time.perf_counter() - began)


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The least an app can do."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})  # type: ignore[misc, arg-type]
        return
    while (await receive()).get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"{}", "more_body": False})


async def throw_away(self: EmailWriter, row: EmailRow) -> Admission:
    """What the route waits for where nothing is stored."""
    return Admission(row.id, is_duplicate=False)


def serve(variant: str) -> None:
    """Run the web process of a variant, as `mailroom web` does."""
    settings = get_settings()
    if variant == "without":
        EmailWriter.store = throw_away  # type: ignore[method-assign]
    app: Litestar = bare if variant == "bare" else create_app()  # type: ignore[assignment]
    uvicorn.Server(server_config(app, settings)).run(sockets=[listen(settings)])


@contextlib.contextmanager
def running(variant: str, port: int, environment: dict[str, str]) -> Iterator[None]:
    """The web process of a variant."""
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", variant],
        env={**environment, "MAILROOM_PORT": str(port)},
    )
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/health/live")
                break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def measure(count: int, rounds: int, first_port: int) -> None:
    """Run the variants in turns and print what they did."""
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as servers:
        environment = {
            **os.environ,
            "MAILROOM_HOME": home,
            "MAILROOM_WEBHOOK_SECRETS": SECRET,
            "MAILROOM_LOG_LEVEL": "warning",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        subprocess.run(
            [sys.executable, "-m", "app.cli.main", "migrate"], env=environment, check=True
        )
        ports = {variant: first_port + number for number, variant in enumerate(VARIANTS)}
        for variant, port in ports.items():
            servers.enter_context(running(variant, port, environment))
        rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for number in range(rounds + 1):
            for variant, port in ports.items():
                requests = [make_request(port) for _ in range(count)]
                rate = uvloop.run(post_all(port, requests))
                # The first round warms up.
                if number:
                    rates[variant].append(rate)
    for variant, measured in rates.items():
        print(
            f"{variant:8} median {statistics.median(measured):7,.0f} requests/s "
            f"({min(measured):,.0f} to {max(measured):,.0f})"
        )
    medians = {variant: statistics.median(measured) for variant, measured in rates.items()}
    print(f"with / without: {medians['with'] / medians['without']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=6000, help="webhooks of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=8790, help="the first of three free ports")
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    else:
        measure(arguments.count, arguments.rounds, arguments.port)


if __name__ == "__main__":
    main()
