"""The broker on Redis, with a limit on everything that it waits for."""

import contextlib
import threading
from collections import defaultdict

import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from app.database.connections import CONNECT_SECONDS, keepalive_options
from app.jobs.watched_broker import WatchedBroker
from app.pauses import GrowingPause

ANSWER_SECONDS = 10.0
ERRORS = (redis.RedisError,)

# Between two looks at a queue in which there was nothing.
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.25


class PromptRedisConsumer(_RedisConsumer):
    """Looks as soon as there may be something.

    The library's sleeps ever longer while it finds nothing, or has as many messages in hand as it
    may: through the next message, too, and the end of one in hand.

    Args:
        bell: set when this process has put a message into the queue.
    """

    def __init__(
        self, broker: RedisBroker, queue_name: str, prefetch: int, bell: threading.Event
    ) -> None:
        # In no time does the library's own sleep end.
        super().__init__(broker, queue_name, prefetch, timeout=0)  # type: ignore[no-untyped-call]
        self._bell = bell
        self._pause = GrowingPause(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

    def __next__(self) -> MessageProxy | None:
        self._bell.clear()
        message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]
        if message is not None or self._bell.wait(self._pause.next_seconds()):
            self._pause.reset()
        return message

    def ack(self, message: MessageProxy) -> None:
        try:
            super().ack(message)  # type: ignore[no-untyped-call]
        finally:
            self._bell.set()

    def nack(self, message: MessageProxy) -> None:
        try:
            super().nack(message)  # type: ignore[no-untyped-call]
        finally:
            self._bell.set()


class PromptRedisBroker(RedisBroker):
    """The library's broker, with consumers that are woken."""

    def __init__(self, *args: object, **options: object) -> None:
        self._bells: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]

    def enqueue(self, message: Message[object], *, delay: int | None = None) -> Message[object]:
        sent: Message[object] = super().enqueue(message, delay=delay)
        self._bells[sent.queue_name].set()
        return sent

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        return PromptRedisConsumer(self, queue_name, prefetch, self._bells[queue_name])


class WatchedRedisBroker(WatchedBroker, PromptRedisBroker):
    """Redis."""


def make(url: str, queue: str, middleware: list[Middleware]) -> WatchedBroker:
    """Make the broker. Its keys are prefixed by the queue's name, so that two installations can
    share a server."""
    return WatchedRedisBroker(client=_client(url), middleware=middleware, namespace=queue)


def try_once(url: str) -> None:
    """Connect as the broker does, and have an answer.

    Raises:
        redis.RedisError: it is not possible.
    """
    with contextlib.closing(_client(url)) as client:
        client.ping()


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        socket_keepalive=True,
        socket_keepalive_options=keepalive_options(),
    )
