"""Whoever waits for a message of the broker is woken: nobody has to look again and again."""

import threading
from collections.abc import Iterator
from typing import TypeAlias
from uuid import UUID, uuid4

import psycopg
import pytest
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed
from dramatiq_postgres.broker import PostgresConsumer
from support import delete_queue, make_settings, wait_until

from app.jobs import redis_broker
from app.jobs.broker import make_broker, prepare_broker
from app.jobs.messages import make_message

Connection: TypeAlias = "psycopg.Connection[dict[str, object]]"

END_CONNECTIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# Far beyond what a test waits for.
NEVER_SECONDS = 3_600.0
PATIENCE_SECONDS = 60.0

on_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
on_postgresql = pytest.mark.parametrize("broker_url", ["postgresql"], indirect=True)


@pytest.fixture
def queue(broker_url: str) -> Iterator[str]:
    name = f"test-{uuid4().hex}"
    yield name
    delete_queue(broker_url, name)


@pytest.fixture
def broker(
    broker_url: str, database_url: str, queue: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Broker]:
    """One whose consumers look again when they are woken, and else never."""
    monkeypatch.setattr(redis_broker, "FIRST_PAUSE_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(redis_broker, "LONGEST_PAUSE_SECONDS", NEVER_SECONDS)
    broker = make_broker(make_settings(broker_url=broker_url, queue=queue), database_url)
    broker.poll_interval = NEVER_SECONDS  # type: ignore[attr-defined]
    prepare_broker(broker)
    broker.declare_queue(queue)
    yield broker
    broker.close()


class Waiting:
    """Somebody who waits for the next message."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._message: MessageProxy | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        while self._message is None:
            self._message = next(self._consumer)

    def message(self) -> MessageProxy:
        self._thread.join(PATIENCE_SECONDS)
        assert self._message is not None, "nobody woke it"
        return self._message


def send(broker: Broker, queue: str) -> UUID:
    email_id = uuid4()
    broker.enqueue(make_message(queue, [email_id]))
    return email_id


@on_redis
def test_a_message_of_the_same_process_wakes_its_consumer(broker: Broker, queue: str) -> None:
    waiting = Waiting(broker.consume(queue))
    email_id = send(broker, queue)
    assert waiting.message().args == (str(email_id),)


@on_redis
@pytest.mark.parametrize("end", ["ack", "nack"])
def test_the_end_of_a_message_makes_room_for_the_next(broker: Broker, queue: str, end: str) -> None:
    first, second = send(broker, queue), send(broker, queue)
    consumer = broker.consume(queue, prefetch=1)
    message = Waiting(consumer).message()
    assert message.args == (str(first),)
    waiting = Waiting(consumer)
    getattr(consumer, end)(message)
    assert waiting.message().args == (str(second),)


@on_postgresql
def test_a_message_that_comes_between_a_look_and_the_wait_wakes_its_consumer(
    broker: Broker, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = broker.consume(queue, timeout=int(NEVER_SECONDS * 1_000))
    # It listens by then.
    wait_until(lambda: broker.notifier._probe_at)  # type: ignore[attr-defined]
    looked = PostgresConsumer.claim
    sent: list[UUID] = []

    def look_and_be_overtaken(self: PostgresConsumer, limit: int) -> None:
        looked(self, limit)
        if not sent:
            sent.append(send(broker, queue))
            # Its notification has come, and the consumer has not begun to wait.
            wait_until(self.wakeup.is_set)

    monkeypatch.setattr(PostgresConsumer, "claim", look_and_be_overtaken)
    assert Waiting(consumer).message().args == (str(sent[0]),)


@on_postgresql
@pytest.mark.parametrize("breaks", [False, True], ids=["it stops", "its connection breaks"])
def test_what_a_consumer_fetched_and_did_not_hand_out_goes_to_the_next(
    broker: Broker, queue: str, connection: Connection, breaks: bool
) -> None:
    sent = {send(broker, queue) for _ in range(3)}
    consumer = broker.consume(queue, prefetch=3)
    first = Waiting(consumer).message()
    if breaks:
        broker.heartbeat_interval = 0  # type: ignore[attr-defined]
        connection.execute(END_CONNECTIONS)
        with pytest.raises(ConnectionClosed):
            next(consumer)
    consumer.close()
    following = broker.consume(queue, prefetch=3)
    left = {Waiting(following).message().args[0] for _ in range(2)}
    assert left == {str(email_id) for email_id in sent} - {first.args[0]}
