"""The connections of a web process: bounds for what comes before, after and instead of a body.

uvicorn bounds none of these: how long and how large the head of a request is, how many requests
wait on a connection, and how many connections there are. And it closes a connection whose request
it has not read to its end; TCP then throws our answer away, and a proxy makes a 502 of a 413.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.problems import PROBLEM_JSON, problem_content

LARGEST_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""

MOST_FIELDS = 200
"""Headers of a request. Each costs some hundred bytes of memory, however short it is."""

HEAD_SECONDS = 20.0
"""Time in which the head of a request has to come, once it began."""

IDLE_SECONDS = 75
"""Time that a connection may wait for its next request: longer than load balancers keep one, which
would send a webhook into one that we close."""

BODY_SECONDS = 60.0
"""Time in which a body has to come; most routes answer earlier that it did not."""

MOST_DRAINED = 64 * 1024 * 1024
"""Bytes of a body that are thrown away after its request was answered."""

DRAIN_SECONDS = 30.0

UNREAD_SECONDS = 60.0
"""Time in which something of an answer has to be read."""

MOST_PIPELINED = 32
"""Requests of a connection that wait for the one before them."""

MOST_CONNECTIONS = 2_000
"""Beyond it the connection that has kept us waiting for the longest makes room."""

PIECE = 64 * 1024
LOOK_EVERY_SECONDS = 2.0

HEAD_TOO_LARGE = (
    431,
    f"the headers are more than {MOST_FIELDS} or larger than {LARGEST_HEAD} bytes: send fewer",
)


class BoundedProtocol(HttpToolsProtocol):
    """A connection of uvicorn's, within bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headers = []
        # Bytes since the last that belonged to a body, or ended a head.
        self._head_bytes = 0
        self._refusal = (400, "the request is not HTTP/1.1")
        # What comes is thrown away without a look at it.
        self._is_refused = False
        # We have said all we had to say.
        self._is_parting = False
        # Bytes that were thrown away of what was answered before its end.
        self._drained: int | None = None
        # Since when we wait for a head, or for the rest of a body.
        self._waiting_since = self.loop.time()
        self._is_body_open = False
        # Since when nothing of our answer was read.
        self._unread_since: float | None = None
        self._look: asyncio.TimerHandle | None = None
        self._answering = _Answering(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answering.open(transport)
        self._look = self.loop.call_later(LOOK_EVERY_SECONDS, self._look_at_the_time)
        if len(self.connections) > MOST_CONNECTIONS:
            _make_room(cast(Iterable[BoundedProtocol], self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._drained is not None:
            self._drained += len(data)
            if self._drained > MOST_DRAINED:
                self.transport.close()
        for start in range(0, len(data), PIECE):
            if self._is_refused or self.transport.is_closing():
                return
            self._feed(data[start : start + PIECE] if len(data) > PIECE else data)

    def _feed(self, piece: bytes) -> None:
        self._head_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # Nothing is spoken here but HTTP. The request is answered as if it had not asked.
            return
        except httptools.HttpParserError:
            self._refuse()
            return
        if self._head_bytes > LARGEST_HEAD or len(self.headers) > MOST_FIELDS:
            self._refusal = HEAD_TOO_LARGE
            self._refuse()

    def on_message_begin(self) -> None:
        if self._is_parting:
            raise ValueError("the request before was the last one")
        if not self._is_working:
            self._waiting_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # A colon, a space and the end of the line belong to each header.
        fields = sum([len(name) + len(value) + 4 for name, value in self.headers])
        if len(self.url) + fields > LARGEST_HEAD or len(self.headers) > MOST_FIELDS:
            self._refusal = HEAD_TOO_LARGE
            raise ValueError("the head is too large")
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests wait on this connection")
        self._head_bytes = 0
        self._waiting_since = self.loop.time()
        self._is_body_open = True
        super().on_headers_complete()
        self._answering.expect_head()
        self.cycle.transport = self._answering  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._is_body_open = False
        self._waiting_since = self.loop.time()
        super().on_message_complete()
        self._drained = None
        if self._is_parting:
            self.transport.close()

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        if self._is_body_open and self._drained is None and not self.pipeline:
            self._drained = 0
        super().on_response_complete()

    def part(self) -> None:
        """Close the connection once the request that was answered is read to its end."""
        if self._is_body_open and not self.pipeline and not self._is_refused:
            self._part_slowly()
        else:
            self.transport.close()

    def _part_slowly(self) -> None:
        """Throw away what still comes: TCP would throw our answer away if it were not read."""
        self._is_parting = True
        self._drained = 0
        self._waiting_since = self.loop.time()
        self.transport.write_eof()
        self.flow.resume_reading()

    @property
    def _is_working(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waiting_since(self) -> float | None:
        """Since when this connection has kept us waiting; None where we let it wait."""
        if self._is_body_open or not self._is_working:
            return self._waiting_since
        return self._unread_since

    def _refuse(self) -> None:
        """Answer what is no request, and heed nothing that follows."""
        self._is_refused = True
        if self._is_parting or self.pipeline or (self._is_working and self.cycle.response_started):
            self.transport.close()
        elif self._is_working and not self._is_body_open:
            # Whoever waits for an answer gets it.
            self.cycle.keep_alive = False
        else:
            if self._is_working:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(_answer(*self._refusal))
            self._part_slowly()

    def _look_at_the_time(self) -> None:
        now = self.loop.time()
        waited = now - self._waiting_since
        if self._unread_since is not None and now - self._unread_since > UNREAD_SECONDS:
            self.transport.abort()
        elif self._drained is not None:
            if waited > DRAIN_SECONDS:
                self.transport.close()
        elif self._is_body_open:
            if waited > BODY_SECONDS:
                self.transport.close()
        elif self._is_working:
            pass
        elif self._head_bytes and waited > HEAD_SECONDS:
            detail = f"the headers did not come within {HEAD_SECONDS:g} seconds: send them again"
            self._refusal = (408, detail)
            self._refuse()
        elif waited > IDLE_SECONDS:
            self.transport.close()
        self._look = self.loop.call_later(LOOK_EVERY_SECONDS, self._look_at_the_time)


class _Answering:
    """The transport as a request's answer sees it: its head goes with the begin of its body, in one
    packet, and closing it is a matter of the connection."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._loop = protocol.loop
        self._part = protocol.part
        self._head = b""
        self._is_head_next = False

    def open(self, transport: asyncio.Transport) -> None:
        self._write = transport.write
        self.is_closing = transport.is_closing

    def expect_head(self) -> None:
        """The next that is written begins an answer."""
        self._is_head_next = True

    def write(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        if not self._is_head_next:
            self._write(data)
            return
        self._is_head_next = False
        self._head = data
        # A body that does not follow at once is not waited for.
        self._loop.call_soon(self._send_head)

    def close(self) -> None:
        self._send_head()
        self._part()

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self.is_closing():
            self._write(head)


def _make_room(connections: Iterable[BoundedProtocol]) -> None:
    waiting = [(since, one) for one in connections if (since := one.waiting_since) is not None]
    _, longest = min(waiting, key=lambda pair: pair[0])
    longest.transport.abort()


def _answer(status: int, detail: str) -> bytes:
    content = problem_content(status, detail)
    phrase = HTTPStatus(status).phrase
    head = (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {PROBLEM_JSON}\r\n"
        f"content-length: {len(content)}\r\nx-content-type-options: nosniff\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + content
