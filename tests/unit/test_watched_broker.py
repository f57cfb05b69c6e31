"""A consumer that hangs is noticed; one that waits in between, or whose broker is away, is not."""

import threading
from collections.abc import Iterator

import pytest
from dramatiq.broker import Consumer
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed
from support import wait_until

from app.jobs.watched_broker import HANGS_AFTER_LOOKS, Progress, WatchedBroker

QUEUE = "mailroom"


class Hanging(Consumer):
    def __init__(self, end: threading.Event) -> None:
        self._end = end

    def __next__(self) -> None:
        self._end.wait()


class Broken(Consumer):
    def __next__(self) -> None:
        raise OSError("away")


@pytest.fixture
def end() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_consumer_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, end: threading.Event
) -> None:
    monkeypatch.setattr("app.jobs.watched_broker.LOOK_SECONDS", 0.001)
    gave_up = threading.Event()
    broker = make_broker(monkeypatch, Hanging(end))
    broker.watch(gave_up.set)
    consumer = broker.consume(QUEUE)
    threading.Thread(target=lambda: next(consumer), daemon=True).start()
    wait_until(gave_up.is_set)


def test_looks_count_only_while_a_consumer_waits_for_an_answer() -> None:
    progress = Progress()
    for _ in range(3):
        with progress.asking(QUEUE):
            assert [progress.look() for _ in range(HANGS_AFTER_LOOKS - 1)] == [None] * (
                HANGS_AFTER_LOOKS - 1
            )
        assert progress.look() is None
    with progress.asking(QUEUE):
        looks = [progress.look() for _ in range(HANGS_AFTER_LOOKS)]
    assert looks[-1] == QUEUE


def test_whatever_a_library_raises_is_a_lost_connection_to_dramatiq(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = make_broker(monkeypatch, Broken()).consume(QUEUE)
    with pytest.raises(ConnectionClosed):
        next(consumer)


def make_broker(monkeypatch: pytest.MonkeyPatch, consumer: Consumer) -> WatchedBroker:
    """Dramatiq's broker for tests, which gives this consumer."""

    class Watched(WatchedBroker, StubBroker):
        pass

    monkeypatch.setattr(StubBroker, "consume", lambda *_, **__: consumer)
    return Watched()
