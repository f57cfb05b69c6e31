"""A Dramatiq broker from a URL. The broker is a doorbell: what it loses is rung again."""

import contextlib
from urllib.parse import urlsplit

import pika
import psycopg
import redis
from dramatiq.broker import Broker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import dq_name
from dramatiq.middleware import AsyncIO, CurrentMessage, Middleware, Retries
from dramatiq_postgres.schema import init as init_postgres_schema
from pika.exceptions import AMQPError, ChannelClosedByBroker

from app.database.connections import (
    CONNECT_SECONDS,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_SECONDS,
    KEEPALIVE_INTERVAL_SECONDS,
    keepalive_options,
)
from app.errors import MailroomError
from app.jobs.postgres_broker import (
    ANSWER_SECONDS,
    BoundedPostgresBroker,
    BrokerAwayError,
    try_postgres_broker,
)
from app.jobs.watched_broker import WatchedBroker
from app.settings import Settings

NOT_FOUND = 404
# RabbitMQ advises 5 to 20: https://www.rabbitmq.com/docs/heartbeats
HEARTBEAT_SECONDS = 10
BROKER_URL_SCHEMES = ("postgresql", "postgres", "redis", "rediss", "amqp", "amqps")


class BrokerUrlError(MailroomError):
    """BROKER_URL names no broker that Mailroom can use."""


class WatchedRedisBroker(WatchedBroker, RedisBroker):
    """Redis."""


class WatchedPostgresBroker(WatchedBroker, BoundedPostgresBroker):
    """PostgreSQL."""


class QuorumRabbitmqBroker(WatchedBroker, RabbitmqBroker):
    """Declares quorum queues: replicated, where RabbitMQ is a cluster.

    A server before 3.8 takes no notice of the wish, and a queue that is there already stays as it
    is, because its type cannot be changed: https://www.rabbitmq.com/docs/quorum-queues
    """

    def _declare_queue(self, queue_name: str) -> None:
        if not self._is_there(queue_name):
            super()._declare_queue(queue_name)  # type: ignore[no-untyped-call]

    def _declare_dq_queue(self, queue_name: str) -> None:
        if not self._is_there(dq_name(queue_name)):
            super()._declare_dq_queue(queue_name)  # type: ignore[no-untyped-call]

    def _is_there(self, queue_name: str) -> bool:
        try:
            self.channel.queue_declare(queue=queue_name, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND:
                raise
            del self.channel
            return False
        return True

    def _build_queue_arguments(self, queue_name: str) -> dict[str, object]:
        arguments = super()._build_queue_arguments(queue_name)  # type: ignore[no-untyped-call]
        return {**arguments, "x-queue-type": "quorum"}


def broker_scheme(settings: Settings) -> str:
    """`postgresql`, `redis` or `amqp`, without the letter for TLS.

    Raises:
        BrokerUrlError: BROKER_URL starts with something else.
    """
    if not settings.broker_url:
        return "postgresql"
    scheme = urlsplit(settings.broker_url).scheme
    if scheme not in BROKER_URL_SCHEMES:
        raise BrokerUrlError(
            f"BROKER_URL starts with {scheme}://: it has to be postgresql://, redis://, "
            "rediss://, amqp:// or amqps://"
        )
    return {"postgres": "postgresql", "rediss": "redis", "amqps": "amqp"}.get(scheme, scheme)


def make_broker(settings: Settings, database_url: str) -> WatchedBroker:
    """Make the broker that BROKER_URL names, the database's where it names none. No connection
    is opened yet.

    Raises:
        BrokerUrlError: BROKER_URL starts with something else.
    """
    # The row counts the attempts of an email. Dramatiq repeats what never got as far as the row.
    middleware: list[Middleware] = [
        AsyncIO(),
        CurrentMessage(),
        Retries(max_retries=None),  # type: ignore[arg-type]
    ]
    scheme = broker_scheme(settings)
    if scheme == "redis":
        # Keys of the queue are prefixed by its name, so two installations can share a server.
        client = _redis_client(settings.broker_url)
        return WatchedRedisBroker(client=client, middleware=middleware, namespace=settings.queue)
    if scheme == "amqp":
        broker = QuorumRabbitmqBroker(middleware=middleware, confirm_delivery=True)
        broker.parameters = _rabbitmq_parameters(settings.broker_url)
        return broker
    return WatchedPostgresBroker(settings.broker_url or database_url, middleware=middleware)


def _redis_client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        socket_keepalive=True,
        socket_keepalive_options=keepalive_options(),
    )


def _rabbitmq_parameters(url: str) -> list[pika.URLParameters]:
    """The hosts to try, in order. What the URL itself says about heartbeats and limits counts."""
    hosts = []
    for one in url.split(";"):
        parameters = pika.URLParameters(one)
        if parameters.heartbeat is None:
            parameters.heartbeat = HEARTBEAT_SECONDS
        if parameters.blocked_connection_timeout is None:
            parameters.blocked_connection_timeout = ANSWER_SECONDS
        if parameters.tcp_options is None:
            parameters.tcp_options = {
                "TCP_KEEPIDLE": KEEPALIVE_IDLE_SECONDS,
                "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
                "TCP_KEEPCNT": KEEPALIVE_COUNT,
            }
        hosts.append(parameters)
    return hosts


def prepare_broker(broker: Broker) -> None:
    """Create the tables of the PostgreSQL broker where they are missing; others need nothing."""
    if isinstance(broker, BoundedPostgresBroker):
        with broker.pool.connection() as connection, connection.cursor() as cursor:
            init_postgres_schema(cursor)


def try_broker(settings: Settings, database_url: str) -> None:
    """Connect to the broker once, as the workers do, and see that it takes what they will ask.

    Raises:
        BrokerAwayError: it cannot be reached, or refuses us.
        BrokerUrlError: BROKER_URL names none.
    """
    scheme = broker_scheme(settings)
    try:
        if scheme == "redis":
            with contextlib.closing(_redis_client(settings.broker_url)) as client:
                client.ping()
        elif scheme == "amqp":
            pika.BlockingConnection(_rabbitmq_parameters(settings.broker_url)).close()
        else:
            try_postgres_broker(settings.broker_url or database_url)
    except (redis.RedisError, AMQPError, psycopg.Error, OSError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise BrokerAwayError(
            f"the broker at BROKER_URL does not answer ({reason}): see that it runs and that the "
            "URL is right"
        ) from error
