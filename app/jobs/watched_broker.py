"""How this process bears a broker that is away: it says so once, asks ever more seldom, and does
not wait for it when it stops.

Dramatiq tries again every three seconds, with two lines of its log each time, and expects an
answer to what it gives back in the end. None of that is needed: a message that is not acknowledged
or given back comes again, or is sent again, and finds that its email is done.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed

from app.pauses import GrowingPause
from app.telemetry.metrics import BROKER_ERRORS, BrokerUse

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
LOOK_SECONDS = 1.0
# Twice as long as any library may wait for its broker.
HANGS_AFTER_LOOKS = 60
# What a worker that stops gives the broker for taking back a batch of messages.
GIVE_BACK_SECONDS = 5.0


class Progress:
    """Whether the consumers of this process get on, each time that they ask the broker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking: dict[str, int] = {}
        """Of the queues whose consumers wait for an answer: how many looks have found them so."""

    @contextlib.contextmanager
    def asking(self, queue_name: str) -> Iterator[None]:
        """The time in which a consumer waits for an answer."""
        with self._lock:
            self._asking[queue_name] = 0
        try:
            yield
        finally:
            with self._lock:
                self._asking.pop(queue_name, None)

    def look(self) -> str | None:
        """Look at it once. Returns the queue of a consumer that hangs.

        Looks are counted and not seconds: a process that was stopped, or a machine that slept, has
        to be given its time anew.
        """
        with self._lock:
            for queue_name in self._asking:
                self._asking[queue_name] += 1
            longest = max(self._asking.items(), key=lambda item: item[1], default=("", 0))
        return longest[0] if longest[1] >= HANGS_AFTER_LOOKS else None


class Reach:
    """Whether the broker answers, as far as the consumers of this process know."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pauses: dict[str, GrowingPause] = {}
        """Of the queues whose consumers could not ask the last time."""
        self._stopping = threading.Event()

    def failed(self, queue_name: str, error: BaseException) -> None:
        """A consumer could not ask."""
        with self._lock:
            was_away = bool(self._pauses)
            if queue_name not in self._pauses:
                self._pauses[queue_name] = GrowingPause(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        BROKER_ERRORS.labels(BrokerUse.CONSUME).inc()
        if not was_away:
            log.warning("broker_away", error=type(error).__name__)

    def answered(self, queue_name: str) -> None:
        """A consumer asked, and was answered."""
        if queue_name not in self._pauses:
            return
        with self._lock:
            del self._pauses[queue_name]
            is_back = not self._pauses
        if is_back:
            log.info("broker_back")

    def wait(self, queue_name: str) -> None:
        """Pause before a consumer asks again; not at all once this process stops."""
        pause = self._pauses.get(queue_name)
        if pause is not None:
            self._stopping.wait(pause.next_seconds())

    def stop_waiting(self) -> None:
        self._stopping.set()

    def is_worth_a_line(self, _: logging.LogRecord) -> bool:
        """A filter of logging, for those who tell each of their tries."""
        return not self._pauses


class WatchedConsumer(Consumer):
    """A consumer of a broker that may go away at any time."""

    def __init__(
        self, consumer: Consumer, queue_name: str, reach: Reach, progress: Progress
    ) -> None:
        self._progress = progress
        self._consumer = consumer
        self._queue_name = queue_name
        self._reach = reach

    def __next__(self) -> MessageProxy | None:
        try:
            with self._progress.asking(self._queue_name):
                message = next(self._consumer)
        except Exception as error:
            self._reach.failed(self._queue_name, error)
            raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]
        self._reach.answered(self._queue_name)
        return message

    def ack(self, message: MessageProxy) -> None:
        self._tell(lambda: self._consumer.ack(message))

    def nack(self, message: MessageProxy) -> None:
        self._tell(lambda: self._consumer.nack(message))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back what was fetched and not begun, so that other workers have it at once."""
        kept = list(messages)
        # Its own time limits may be minutes, and may not be ours to set.
        telling = threading.Thread(
            target=lambda: self._tell(lambda: self._consumer.requeue(kept)), daemon=True
        )
        telling.start()
        telling.join(GIVE_BACK_SECONDS)

    def close(self) -> None:
        self._tell(self._consumer.close)

    def _tell(self, say: Callable[[], object]) -> None:
        try:
            say()
        except Exception as error:  # noqa: BLE001 - whatever a library raises, see above
            BROKER_ERRORS.labels(BrokerUse.CONSUME).inc()
            log.debug("broker_not_told", error=type(error).__name__)


class WatchedBroker(Broker):
    """To be mixed into a broker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reach = Reach()
        self._progress = Progress()
        super().__init__(*args, **kwargs)

    def consume(self, queue_name: str, *args: Any, **kwargs: Any) -> Consumer:
        self._reach.wait(queue_name)
        consumers = logging.getLogger(f"dramatiq.worker.ConsumerThread({queue_name})")
        consumers.addFilter(self._reach.is_worth_a_line)
        try:
            with self._progress.asking(queue_name):
                consumer = super().consume(queue_name, *args, **kwargs)
        except Exception as error:
            self._reach.failed(queue_name, error)
            raise
        return WatchedConsumer(consumer, queue_name, self._reach, self._progress)

    def stop_waiting(self) -> None:
        """Pause no longer for a broker that is away: this process stops."""
        self._reach.stop_waiting()

    def watch(self, give_up: Callable[[], object]) -> None:
        """Call `give_up` once if a consumer hangs in spite of all time limits: it would for ever,
        and emails would wait of which nobody is told."""

        def look() -> None:
            while (queue_name := self._progress.look()) is None:
                time.sleep(LOOK_SECONDS)
            log.critical("consumer_hangs", queue=queue_name)
            give_up()

        threading.Thread(target=look, name="consumer-watch", daemon=True).start()
