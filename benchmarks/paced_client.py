"""Posts signed webhooks at a steady rate, whether the last was answered or not.

The time of each counts from when it was due to be sent, so a server that stands still is not spared
what would have come meanwhile.
"""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import attrs

from app.intake.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from benchmarks.payloads import make_email
from benchmarks.web_client import LENGTH, PATH

CONNECTIONS = 64


@attrs.define
class Answers:
    """How webhooks were answered since a moment."""

    latencies: list[float] = attrs.field(factory=list)
    """Seconds, of each that was answered 200."""
    refused: int = 0

    def percentile(self, share: float) -> float:
        """The latency, in ms, that this share of the webhooks did not exceed."""
        ordered = sorted(self.latencies)
        if not ordered:
            return math.nan
        return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class PacedClient:
    """Posts so many emails a second, of about so many bytes, for the time of a block."""

    def __init__(self, port: int, secret: str, *, rate: float, size: int) -> None:
        self._port = port
        self._secret = secret
        self._rate = rate
        self._email = make_email(0, size)
        self._run = uuid4().hex[:12]
        self._number = 0
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )
        self.answers = Answers()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["PacedClient"]:
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(await asyncio.open_connection("127.0.0.1", self._port))
        posting = asyncio.create_task(self._post_on())
        try:
            yield self
        finally:
            posting.cancel()
            await asyncio.wait({posting})
            while not self._idle.empty():
                self._idle.get_nowait()[1].close()

    def take(self) -> Answers:
        """What was answered since the last call."""
        answers, self.answers = self.answers, Answers()
        return answers

    async def _post_on(self) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(10**12):
                due = began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self._post(due))

    async def _post(self, due: float) -> None:
        reader, writer = await self._idle.get()
        writer.write(self._request())
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        await reader.readexactly(int(length[1]) if length else 0)
        if head.startswith(b"HTTP/1.1 200"):
            self.answers.latencies.append(time.perf_counter() - due)
        else:
            self.answers.refused += 1
        self._idle.put_nowait((reader, writer))

    def _request(self) -> bytes:
        self._number += 1
        told = {**self._email, "webhook_id": f"{self._run}-{self._number}"}
        body = json.dumps(told, ensure_ascii=False).encode()
        timestamp = datetime.now(UTC).isoformat()
        lines: Sequence[str] = (
            f"POST {PATH} HTTP/1.1",
            "host: 127.0.0.1",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"{SIGNATURE_HEADER}: {sign(self._secret, timestamp, body)}",
            f"{TIMESTAMP_HEADER}: {timestamp}",
        )
        return "\r\n".join([*lines, "", ""]).encode() + body
