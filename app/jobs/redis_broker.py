"""The broker on Redis, with a limit on everything that it waits for."""

import contextlib

import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware

from app.database.connections import CONNECT_SECONDS, keepalive_options
from app.jobs.watched_broker import WatchedBroker

ANSWER_SECONDS = 10.0
ERRORS = (redis.RedisError,)


class WatchedRedisBroker(WatchedBroker, RedisBroker):
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
