"""The broker on RabbitMQ, with quorum queues and a limit on everything that it waits for."""

import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import dq_name
from dramatiq.middleware import Middleware
from pika.exceptions import AMQPError, ChannelClosedByBroker

from app.database.connections import (
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_SECONDS,
    KEEPALIVE_INTERVAL_SECONDS,
)
from app.jobs.watched_broker import WatchedBroker

ANSWER_SECONDS = 10.0
NOT_FOUND = 404
# RabbitMQ advises 5 to 20: https://www.rabbitmq.com/docs/heartbeats
HEARTBEAT_SECONDS = 10
ERRORS = (AMQPError,)


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


def make(url: str, queue: str, middleware: list[Middleware]) -> WatchedBroker:
    """Make the broker. Its queues are told apart by their names alone."""
    broker = QuorumRabbitmqBroker(middleware=middleware, confirm_delivery=True)
    broker.parameters = _parameters(url)
    return broker


def try_once(url: str) -> None:
    """Connect as the broker does.

    Raises:
        AMQPError: it is not possible.
    """
    pika.BlockingConnection(_parameters(url)).close()


def _parameters(url: str) -> list[pika.URLParameters]:
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
