"""Posts signed webhooks over so many connections, each the next one when the last is answered."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import attrs

from app.intake.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from benchmarks.payloads import make_email

PATH = "/api/v1/zendesk/webhook"
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
PATIENCE_SECONDS = 120.0


@attrs.frozen
class Answered:
    """How a number of webhooks was answered."""

    seconds: float
    """For all of them."""

    latencies: list[float]
    """Seconds, of each."""


def make_requests(port: int, secret: str, size: int, count: int) -> list[bytes]:
    """Signed webhooks of about so many bytes, as bytes on the wire, no two the same."""
    run = uuid4().hex[:12]
    # One text for all: made anew, a large one would take longer than its webhook does.
    email = make_email(0, size, run=run)
    timestamp = datetime.now(UTC).isoformat()
    requests = []
    for number in range(count):
        told = {
            **email,
            "ticket_id": str(number),
            "from_email": f"erika-{number}@example.com",
            "webhook_id": f"{run}-{number}",
        }
        body = json.dumps(told, ensure_ascii=False).encode()
        lines = [
            f"POST {PATH} HTTP/1.1",
            f"host: 127.0.0.1:{port}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"{SIGNATURE_HEADER}: {sign(secret, timestamp, body)}",
            f"{TIMESTAMP_HEADER}: {timestamp}",
        ]
        requests.append("\r\n".join([*lines, "", ""]).encode() + body)
    return requests


class _Connection(asyncio.Protocol):
    def __init__(
        self,
        requests: Iterator[bytes],
        latencies: list[float],
        done: "asyncio.Future[None]",
    ) -> None:
        self._requests = requests
        self._latencies = latencies
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
        if head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 202")):
            self._latencies.append(time.perf_counter() - self._sent)
            self._send()
        else:
            status = head.partition(b"\r\n")[0]
            told = b"%b: %b" % (status, body[:1_000])
            if not self._done.done():
                self._done.set_exception(RuntimeError(told.decode(errors="replace")))
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
            self._sent = time.perf_counter()
            self._transport.write(request)


async def post_all(port: int, requests: list[bytes], connections: int) -> Answered:
    """Post the webhooks.

    Raises:
        RuntimeError, ConnectionError, TimeoutError: one was not accepted.
    """
    loop = asyncio.get_running_loop()
    line = iter(requests)
    latencies: list[float] = []
    done = [loop.create_future() for _ in range(connections)]
    began = time.perf_counter()
    async with asyncio.timeout(PATIENCE_SECONDS):
        for future in done:
            await loop.create_connection(
                lambda future=future: _Connection(line, latencies, future), "127.0.0.1", port
            )
        await asyncio.gather(*done)
    return Answered(time.perf_counter() - began, latencies)
