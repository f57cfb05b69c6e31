"""The broker on PostgreSQL, by dramatiq-postgres, with a limit on everything that it waits for.

The library waits for an answer without end, and tries ten times ten times. Whoever uses it here
asks again by itself, cannot wait for minutes when it is to stop, and must notice a connection that
a router forgot. So it is given a pool of our own, and its consumer a bell that it cannot miss.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq_postgres import PostgresBroker
from dramatiq_postgres.broker import Notifier, PostgresConsumer
from dramatiq_postgres.utils import raise_connection_error
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg_pool import ConnectionPool

from app.database.connections import (
    CONNECT_SECONDS,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_SECONDS,
    KEEPALIVE_INTERVAL_SECONDS,
    UNACKNOWLEDGED_SECONDS,
)
from app.database.errors import is_spent
from app.database.libpq import libpq_parameters
from app.jobs.broker_url import BrokerAwayError
from app.jobs.watched_broker import WatchedBroker

# What the engine asks is answered in milliseconds.
ANSWER_SECONDS = 10.0
POOL_SIZE = 16
# One that answered so lately is not tried again before it is lent.
TRIED_FOR_SECONDS = 1.0
PROBE_EVERY_SECONDS = 10.0
# Where Retries had it sent again it is `queued`, and stays.
ACK = """
DELETE FROM dramatiq.queue WHERE message_id = %s AND queue_name = %s AND state = 'consumed'
"""
GIVE_BACK = """
UPDATE dramatiq.queue SET state = 'queued', worker_id = NULL, consumed_at = NULL, mtime = now()
WHERE message_id = ANY (%s::uuid[]) AND state = 'consumed'
"""
IS_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on'"
# A message lost in a crash of PostgreSQL is sent again, so its durability is not worth a disk flush
# for each enqueue and acknowledgement; the emails' own commits are not touched. And a transaction
# whose client vanished must not keep its messages locked.
#
# It is not sent while connecting, where a pooler refuses `options`, and not to a pooler at all: one
# that lends its connections by the transaction would have the emails' own commits wait for no disk.
BACKEND = "SELECT pg_backend_pid()"
SET_UP = """
SET synchronous_commit = off;
SET idle_in_transaction_session_timeout = '30s'
"""


ERRORS = (psycopg.Error,)
BROKER_AWAY = (BrokerAwayError, psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that waits for no answer without end, and closes itself when it is spent."""

    tried_at = -TRIED_FOR_SECONDS
    """When it could write, by the monotonic clock."""

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, ANSWER_SECONDS if timeout is None else timeout)
        except _WaitTimeout as error:
            if timeout is not None:
                raise
            self.close()
            raise psycopg.OperationalError(f"no answer in {ANSWER_SECONDS:g} seconds") from error
        except psycopg.Error as error:
            if is_spent(error.sqlstate):
                self.close()
            raise


class BrokerPool(ConnectionPool[BoundedConnection]):
    """Connections to the broker's database, each tried before it is lent."""

    def __init__(self, url: str) -> None:
        self._parameters = connection_parameters(url)
        super().__init__(
            connection_class=BoundedConnection,
            kwargs=self._parameters,
            configure=_set_up,
            check=_try,
            min_size=0,
            max_size=POOL_SIZE,
            timeout=CONNECT_SECONDS,
            open=True,
        )

    def connect_anew(self) -> BoundedConnection:
        """A connection that is none of the pool's, which may all have broken at the same moment."""
        return BoundedConnection.connect(**self._parameters)

    def getconn(self, timeout: float | None = None) -> BoundedConnection:
        try:
            return super().getconn(timeout)
        except psycopg.OperationalError as error:
            # Not of a kind that the library tries again, ten times.
            raise BrokerAwayError(f"the broker's database does not answer ({error})") from error


def connection_parameters(url: str) -> dict[str, Any]:
    """How each connection to the broker's database is opened."""
    return {
        "application_name": "mailroom-broker",
        "connect_timeout": int(CONNECT_SECONDS),
        # Behind a pooler a statement that was prepared may be in another session.
        "prepare_threshold": None,
        "keepalives": 1,
        "keepalives_idle": KEEPALIVE_IDLE_SECONDS,
        "keepalives_interval": KEEPALIVE_INTERVAL_SECONDS,
        "keepalives_count": KEEPALIVE_COUNT,
        "tcp_user_timeout": UNACKNOWLEDGED_SECONDS * 1_000,
        **libpq_parameters(url),
    }


def try_once(url: str) -> None:
    """Connect once as the pool does, and see that messages can be written.

    Raises:
        psycopg.Error: it is not possible.
    """
    with BoundedConnection.connect(**connection_parameters(url)) as connection:
        _set_up(connection)
        _try(connection)


def _set_up(connection: BoundedConnection) -> None:
    # A pooler has a number of its own for each client.
    if _alone(connection, BACKEND).fetchone() == (connection.info.backend_pid,):
        _alone(connection, SET_UP)


def _try(connection: BoundedConnection) -> None:
    now = time.monotonic()
    if now < connection.tried_at + TRIED_FOR_SECONDS:
        return
    (is_read_only,) = _alone(connection, IS_READ_ONLY).fetchone() or (True,)
    if is_read_only:
        connection.close()
        raise psycopg.OperationalError("the broker's database is read-only")
    connection.tried_at = now


def _alone(
    connection: BoundedConnection, statement: LiteralString, values: Sequence[object] = ()
) -> "psycopg.Cursor[Any]":
    """Run a statement in no transaction."""
    connection.autocommit = True
    try:
        return connection.execute(statement, values or None)
    finally:
        if not connection.closed:
            connection.autocommit = False


class ProbingNotifier(Notifier):  # type: ignore[misc]
    """Listens for messages, over a connection of which it makes sure that it still is one."""

    def __init__(self, pool: BrokerPool) -> None:
        super().__init__(pool)
        self._probe_at = 0.0

    def ensure_conn(self) -> BoundedConnection:
        connection: BoundedConnection = super().ensure_conn()
        if time.monotonic() > self._probe_at:
            if connection.execute(IS_READ_ONLY).fetchone() != (False,):
                raise psycopg.OperationalError("the broker's database is read-only")
            self._probe_at = time.monotonic() + PROBE_EVERY_SECONDS
        return connection


class Bell(threading.Event):
    """An event that whoever waits hears once, even if it came before.

    The library's consumer clears its event after it has looked, and before it waits: a message that
    comes in between would lie until the next one comes, or for a second.
    """

    def clear(self) -> None:
        """Keep what was not heard yet."""

    def wait(self, timeout: float | None = None) -> bool:
        has_rung = super().wait(timeout)
        super().clear()
        return has_rung


class ForgettingConsumer(PostgresConsumer):  # type: ignore[misc]
    """Does not count a message as in hand for ever whose acknowledgement failed, and misses no
    notification of a new one."""

    def __init__(self, **options: Any) -> None:
        self._bell = Bell()
        super().__init__(**options)

    @property
    def wakeup(self) -> threading.Event:
        """What its notifications ring."""
        return self._bell

    @wakeup.setter
    def wakeup(self, _: threading.Event) -> None:
        """Keep the bell. To listen for the library's own event first, and then for the bell, would
        lose what is told between the two."""

    @raise_connection_error  # type: ignore[untyped-decorator]
    def ack(self, message: MessageProxy) -> None:
        """Remove it. The library tells the whole message to whoever listens, and nobody does: who
        tells something commits one after the other, and each webhook tells that an email came."""
        try:
            with self.pool.connection() as connection:
                _alone(connection, ACK, (message.message_id, message.queue_name))
        finally:
            self._forget(message)

    def nack(self, message: MessageProxy) -> None:
        try:
            super().nack(message)
        finally:
            self._forget(message)

    def close(self) -> None:
        """Give back what was fetched and not handed out, or it would count as taken by a process
        that lives, and wait to be found lost."""
        try:
            if self.buffer:
                with self.pool.connect_anew() as connection:
                    ids = [message.message_id for message in self.buffer]
                    _alone(connection, GIVE_BACK, (ids,))
        finally:
            super().close()

    def _forget(self, message: MessageProxy) -> None:
        self.in_processing.discard(message.message_id)
        self.wakeup.set()


class BoundedPostgresBroker(PostgresBroker):  # type: ignore[misc]
    """The library's broker on a pool of ours.

    Args:
        url: where the database is.
        options: those of every broker of Dramatiq.
    """

    # Without the ten tries around it.
    enqueue = PostgresBroker.enqueue.__wrapped__

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(pool=BrokerPool(url), results=False, listen=False, **options)
        self.listen = True
        self.notifier = ProbingNotifier(self.pool)
        for tells in ("psycopg.pool", "dramatiq_postgres"):
            logging.getLogger(tells).setLevel(logging.ERROR)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> Consumer:
        consumer: Consumer = ForgettingConsumer(
            broker=self, queue_name=queue_name, prefetch=prefetch, timeout=timeout
        )
        return consumer

    def close(self) -> None:
        super().close()
        self.pool.close(timeout=CONNECT_SECONDS)


class WatchedPostgresBroker(WatchedBroker, BoundedPostgresBroker):
    """PostgreSQL."""


def make(url: str, queue: str, middleware: list[Middleware]) -> WatchedBroker:
    """Make the broker. The queue's name stands in each row of its table."""
    return WatchedPostgresBroker(url, middleware=middleware)
