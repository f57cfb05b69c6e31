"""A Dramatiq broker from a URL. The broker is a doorbell: what it loses is rung again."""

import logging
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import dramatiq
import pika
import psycopg
import redis
from dramatiq.broker import Broker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import dq_name
from dramatiq.middleware import AsyncIO, Middleware, Retries
from dramatiq_postgres import PostgresBroker
from dramatiq_postgres.schema import init as init_postgres_schema
from dramatiq_postgres.utils import getconn
from pika.exceptions import AMQPError, ChannelClosedByBroker
from psycopg.conninfo import conninfo_to_dict
from tenacity import stop_after_attempt

from app.errors import MailroomError
from app.jobs.watched_broker import WatchedBroker
from app.settings import Settings

NOT_FOUND = 404
CONNECT_SECONDS = 5
ANSWER_SECONDS = 20
ACTOR_NAME = "process_email"
BROKER_URL_SCHEMES = ("postgresql", "postgres", "redis", "rediss", "amqp", "amqps")


class BrokerUrlError(MailroomError):
    """BROKER_URL names no broker that Mailroom can use."""


class BrokerAwayError(MailroomError):
    """The broker cannot be reached."""


class WatchedRedisBroker(WatchedBroker, RedisBroker):
    """Redis."""


class WatchedPostgresBroker(WatchedBroker, PostgresBroker):  # type: ignore[misc]
    """PostgreSQL.

    The library tries ten times ten times, for half a minute each, and tells each try. Whoever uses
    it here asks again by itself, and cannot wait for minutes when it is to stop.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool.timeout = CONNECT_SECONDS
        getconn.retry.stop = stop_after_attempt(1)
        # The first may meet a connection that the server has ended just now.
        PostgresBroker.enqueue.retry.stop = stop_after_attempt(2)
        for tells in ("psycopg.pool", "dramatiq_postgres"):
            logging.getLogger(tells).setLevel(logging.ERROR)


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
    middleware: list[Middleware] = [AsyncIO(), Retries(max_retries=None)]  # type: ignore[arg-type]
    scheme = broker_scheme(settings)
    if scheme == "redis":
        # Keys of the queue are prefixed by its name, so two installations can share a server.
        client = redis.Redis.from_url(
            settings.broker_url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
        )
        return WatchedRedisBroker(client=client, middleware=middleware, namespace=settings.queue)
    if scheme == "amqp":
        return QuorumRabbitmqBroker(
            url=settings.broker_url, middleware=middleware, confirm_delivery=True
        )
    broker: WatchedBroker = WatchedPostgresBroker(
        url=_without_waiting_for_the_disk(settings.broker_url or database_url),
        middleware=middleware,
        results=False,
    )
    return broker


def _without_waiting_for_the_disk(url: str) -> dict[str, object]:
    """Connection parameters under which a commit does not wait for the disk.

    A message lost in a crash of PostgreSQL is sent again, so its durability is not worth a disk
    flush for each enqueue and acknowledgement. The emails' own commits are not touched.
    """
    parameters: dict[str, object] = dict(conninfo_to_dict(url))
    given = str(parameters.get("options") or "")
    parameters["options"] = f"{given} -c synchronous_commit=off".strip()
    return parameters


def prepare_broker(broker: Broker) -> None:
    """Create the tables of the PostgreSQL broker where they are missing; others need nothing."""
    if isinstance(broker, PostgresBroker):
        with broker.pool.connection() as connection, connection.cursor() as cursor:
            init_postgres_schema(cursor)


def try_broker(settings: Settings, database_url: str) -> None:
    """Connect to the broker once.

    Raises:
        BrokerAwayError: it cannot be reached, or refuses us.
        BrokerUrlError: BROKER_URL names none.
    """
    scheme = broker_scheme(settings)
    try:
        if scheme == "redis":
            redis.Redis.from_url(settings.broker_url, socket_timeout=CONNECT_SECONDS).ping()
        elif scheme == "amqp":
            hosts = [pika.URLParameters(url) for url in settings.broker_url.split(";")]
            pika.BlockingConnection(hosts).close()
        else:
            url = settings.broker_url or database_url
            psycopg.connect(url, connect_timeout=CONNECT_SECONDS).close()
    except (redis.RedisError, AMQPError, psycopg.Error, OSError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise BrokerAwayError(
            f"the broker at BROKER_URL does not answer ({reason}): see that it runs and that the "
            "URL is right"
        ) from error


def make_message(queue: str, email_id: UUID) -> dramatiq.Message[None]:
    """The message that asks for one email."""
    return dramatiq.Message(
        queue_name=queue,
        actor_name=ACTOR_NAME,
        args=(str(email_id),),
        kwargs={},
        options={},
    )
