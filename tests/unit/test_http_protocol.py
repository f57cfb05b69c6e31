"""The times of a connection, without waiting for them."""

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.http import protocol
from app.http.protocol import BoundedProtocol


class Transport(asyncio.Transport):
    """Keeps what is written; is closed when it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.is_closed = False

    @property
    def written(self) -> bytes:
        return b"".join(self.pieces)

    def write(self, data: Any) -> None:
        self.pieces.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Clock:
    """A loop whose time is set, and whose timers never ring."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self.now

    def call_later(self, *_: object) -> asyncio.Handle:
        return asyncio.Handle(print, (), self._loop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def never_answers(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


async def reads_to_the_end(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def answers_at_once(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answers_in_pieces(scope: Any, receive: Any, send: Any) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"o", "more_body": True})
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"k", "more_body": False})


async def answers_late(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.Event().wait()


async def answers_without_a_body(scope: Any, receive: Any, send: Any) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def connect(app: Any, state: ServerState, clock: Clock) -> tuple[BoundedProtocol, Transport]:
    config = Config(app, http=BoundedProtocol, log_config=None)
    config.load()
    # Without uvicorn's own middleware, which wants a scope with a client.
    config.loaded_app = app
    connection = BoundedProtocol(config, state, {}, clock)
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


@pytest.fixture
def state() -> ServerState:
    return ServerState()


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"


@pytest.mark.parametrize(
    ("sent", "seconds", "told"),
    [
        (b"", protocol.IDLE_SECONDS, b""),
        (HEAD, protocol.HEAD_SECONDS, b"HTTP/1.1 408 "),
        (HEAD + b"\r\n12345", protocol.BODY_SECONDS, b""),
    ],
    ids=["nothing", "half a head", "half a body"],
)
async def test_what_does_not_come_in_time_is_waited_for_no_longer(
    state: ServerState, sent: bytes, seconds: float, told: bytes
) -> None:
    clock = Clock()
    connection, transport = connect(never_answers, state, clock)
    connection.data_received(sent)
    clock.now += seconds - 1
    connection._look_at_the_time()
    assert not transport.is_closed and not transport.written
    clock.now += 2
    connection._look_at_the_time()
    assert transport.written.startswith(told)
    clock.now += protocol.DRAIN_SECONDS + 1
    connection._look_at_the_time()
    assert transport.is_closed


async def test_whoever_waits_for_us_may_wait_long(state: ServerState) -> None:
    clock = Clock()
    connection, transport = connect(never_answers, state, clock)
    connection.data_received(HEAD + b"\r\n1234567890")
    clock.now += 10_000
    connection._look_at_the_time()
    assert not transport.is_closed


async def test_an_answer_that_nobody_reads_is_given_up(state: ServerState) -> None:
    clock = Clock()
    connection, transport = connect(never_answers, state, clock)
    connection.data_received(HEAD + b"\r\n1234567890")
    clock.now += 10_000
    connection.pause_writing()
    connection._look_at_the_time()
    connection.resume_writing()
    clock.now += protocol.UNREAD_SECONDS + 1
    connection._look_at_the_time()
    assert not transport.is_closed
    connection.pause_writing()
    clock.now += protocol.UNREAD_SECONDS + 1
    connection._look_at_the_time()
    assert transport.is_closed
    # As the event loop tells it then; else the application would wait for its reader.
    connection.connection_lost(ConnectionAbortedError())


@pytest.mark.parametrize(
    "rest", [b"no length\r\n", b"1;" + b"a" * 200_000], ids=["length", "extension"]
)
async def test_a_body_that_breaks_the_rules_is_told_so(state: ServerState, rest: bytes) -> None:
    clock = Clock()
    connection, transport = connect(reads_to_the_end, state, clock)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.data_received(head)
    connection.data_received(rest)
    assert transport.written.startswith(b"HTTP/1.1 4")
    assert transport.written.count(b"HTTP/1.1 ") == 1
    # The application is told that no more comes.
    await asyncio.gather(*state.tasks)


async def test_the_rest_of_an_answered_request_is_read_for_a_while(state: ServerState) -> None:
    clock = Clock()
    connection, transport = connect(answers_at_once, state, clock)
    connection.data_received(HEAD + b"Connection: close\r\n\r\n12345")
    await asyncio.gather(*state.tasks)
    assert transport.written.startswith(b"HTTP/1.1 413 ")
    clock.now += protocol.DRAIN_SECONDS - 1
    connection._look_at_the_time()
    assert not transport.is_closed
    clock.now += 2
    connection._look_at_the_time()
    assert transport.is_closed


async def test_the_connection_that_waits_longest_makes_room(
    state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 3)
    clock = Clock()
    working, *_ = first = connect(never_answers, state, clock)
    working.data_received(HEAD + b"\r\n1234567890")
    others = []
    for sent in (HEAD, b"", HEAD + b"\r\n1"):
        clock.now += 1
        others.append(connect(never_answers, state, clock))
        others[-1][0].data_received(sent)
    assert [transport.is_closed for _, transport in (first, *others)] == [False, True, False, False]


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_the_head_of_an_answer_goes_with_the_begin_of_its_body(state: ServerState) -> None:
    connection, transport = connect(answers_in_pieces, state, Clock())
    for number in (1, 2):
        connection.data_received(GET)
        await asyncio.gather(*state.tasks)
        head_and_begin, rest = transport.pieces[-2:]
        assert head_and_begin.startswith(b"HTTP/1.1 200 ")
        assert head_and_begin.endswith(b"\r\n\r\no")
        assert rest == b"k"
        assert len(transport.pieces) == 2 * number


async def test_a_head_does_not_wait_for_a_body_that_is_late(state: ServerState) -> None:
    connection, transport = connect(answers_late, state, Clock())
    connection.data_received(GET)
    for _ in range(3):
        await asyncio.sleep(0)
    assert transport.written.endswith(b"\r\n\r\n")


async def test_a_head_goes_out_before_its_connection_is_closed(state: ServerState) -> None:
    connection, transport = connect(answers_without_a_body, state, Clock())
    connection.data_received(GET.replace(b"GET", b"HEAD"))
    await asyncio.gather(*state.tasks)
    assert transport.is_closed
    assert transport.written.startswith(b"HTTP/1.1 200 ")
