"""A team's own system that gets deliveries, over real HTTP, in the event loop of the test. How it
answers is told it; what it was sent is written down, with the signature checked."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import attrs
from standardwebhooks import Webhook

SECRET = "whsec_" + "QUJD" * 11
OTHER_SECRET = "whsec_" + "REVG" * 11


@attrs.frozen
class Delivery:
    """One request that came in; its signature was right."""

    webhook_id: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What is told, alone or in a batch."""
        return self.json if isinstance(self.json, list) else [self.json]


Respond = Callable[[Delivery, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes = b"", **headers: str) -> Respond:
    """Answer always so."""

    async def respond(_: Delivery, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, {"content-length": str(len(body)), **headers}) + body)
        await writer.drain()

    return respond


def head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Some Reason"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def hang(_: Delivery, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def die(_: Delivery, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def endless(status: int) -> Respond:
    """A body without end, in blocks that come quickly."""

    async def respond(_: Delivery, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, {"content-type": "text/plain"}))
        while True:
            writer.write(b"all work and no play " * 3_000)
            await writer.drain()

    return respond


class FakeReceiver:
    """Takes deliveries at `url`."""

    def __init__(self) -> None:
        self.respond: Respond = answer(204)
        self.deliveries: list[Delivery] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.came = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/in?key=s3cret"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for delivery in self.deliveries for event in delivery.events]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                begun = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = begun.split("\r\n")[1:-2]
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                Webhook(SECRET).verify(body, headers)
                delivery = Delivery(headers["webhook-id"], headers, body, number)
                self.deliveries.append(delivery)
                self.came.set()
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                try:
                    await self.respond(delivery, writer)
                finally:
                    self.open -= 1
        writer.close()


@contextlib.contextmanager
def receiver_in_a_thread() -> Iterator[FakeReceiver]:
    """For tests of processes, which have no event loop."""
    loop = asyncio.new_event_loop()
    receiver = FakeReceiver()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(receiver.start(), loop).result()
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(_end_all, loop)
        thread.join()
        loop.close()


def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    gathered = asyncio.gather(*tasks, return_exceptions=True)
    gathered.add_done_callback(lambda _: loop.stop())


@contextlib.asynccontextmanager
async def running_receiver() -> AsyncIterator[FakeReceiver]:
    receiver = FakeReceiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()
