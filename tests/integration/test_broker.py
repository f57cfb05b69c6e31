"""The broker on RabbitMQ: quorum queues, and what an older installation left behind."""

import contextlib
from collections.abc import Iterator
from uuid import uuid4

import pika
import pytest
from dramatiq.broker import Broker
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from support import delete_queue, free_port, make_settings

from app.jobs.broker import make_broker
from app.jobs.broker_url import try_broker
from app.jobs.messages import make_message

pytestmark = pytest.mark.parametrize("broker_url", ["amqp"], indirect=True)


@pytest.fixture
def queue(broker_url: str) -> Iterator[str]:
    name = f"test-{uuid4().hex}"
    yield name
    delete_queue(broker_url, name)


@pytest.fixture
def broker(broker_url: str, queue: str) -> Iterator[Broker]:
    broker = make_broker(make_settings(broker_url=broker_url, queue=queue), "")
    yield broker
    broker.close()


@contextlib.contextmanager
def channel_to(broker_url: str) -> Iterator[BlockingChannel]:
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
        yield connection.channel()


def count_waiting(broker_url: str, queue: str, kind: str) -> int:
    """How many messages wait in a queue of this kind.

    Raises:
        ChannelClosedByBroker: it is of another kind.
    """
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{queue.removesuffix('.DQ')}.XQ",
        "x-queue-type": kind,
    }
    with channel_to(broker_url) as channel:
        declared = channel.queue_declare(queue, durable=True, arguments=arguments)
        count: int = declared.method.message_count
        return count


def test_a_new_queue_is_a_quorum_queue(broker: Broker, broker_url: str, queue: str) -> None:
    for _ in range(3):
        broker.enqueue(make_message(queue, [uuid4()]))
    assert count_waiting(broker_url, queue, "quorum") == 3
    with pytest.raises(ChannelClosedByBroker):
        count_waiting(broker_url, queue, "classic")


def test_a_queue_of_another_type_stays_in_use(broker: Broker, broker_url: str, queue: str) -> None:
    for name in (queue, f"{queue}.DQ"):
        assert count_waiting(broker_url, name, "classic") == 0
    email_id = uuid4()
    broker.enqueue(make_message(queue, [email_id]))
    assert count_waiting(broker_url, queue, "classic") == 1
    consumer = broker.consume(queue)
    message = next(consumer)
    assert message is not None
    assert message.args == (str(email_id),)
    consumer.ack(message)
    consumer.close()


def test_a_queue_that_was_deleted_is_made_again(
    broker: Broker, broker_url: str, queue: str
) -> None:
    broker.enqueue(make_message(queue, [uuid4()]))
    delete_queue(broker_url, queue)
    broker.enqueue(make_message(queue, [uuid4()]))
    assert count_waiting(broker_url, queue, "quorum") == 1


def test_of_several_hosts_one_that_answers_is_taken(broker_url: str, queue: str) -> None:
    away = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    settings = make_settings(broker_url=f"{away};{broker_url}", queue=queue)
    try_broker(settings, "")
    broker = make_broker(settings, "")
    broker.enqueue(make_message(queue, [uuid4()]))
    broker.close()
    assert count_waiting(broker_url, queue, "quorum") == 1
