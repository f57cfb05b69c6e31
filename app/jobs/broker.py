"""A Dramatiq broker from a URL. The broker is a doorbell: what it loses is rung again."""

import time

import structlog
from dramatiq.broker import Broker
from dramatiq.middleware import CurrentMessage, Middleware, Retries
from dramatiq_postgres.schema import init as init_postgres_schema

from app.jobs.broker_url import broker_module
from app.jobs.fast_loop import FastAsyncIO
from app.jobs.postgres_broker import BROKER_AWAY, BoundedPostgresBroker
from app.jobs.watched_broker import WatchedBroker
from app.pauses import GrowingPause
from app.settings import Settings

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 15.0


def make_broker(settings: Settings, database_url: str) -> WatchedBroker:
    """Make the broker that BROKER_URL names, the database's where it names none. No connection
    is opened yet.

    Raises:
        BrokerUrlError: BROKER_URL starts with something else.
    """
    # The row counts the attempts of an email. Dramatiq repeats what never got as far as the row.
    middleware: list[Middleware] = [
        FastAsyncIO(),
        CurrentMessage(),
        Retries(max_retries=None),  # type: ignore[arg-type]
    ]
    url = settings.broker_url or database_url
    return broker_module(settings).make(url, settings.queue, middleware)


def prepare_broker(broker: Broker) -> None:
    """Create the tables of the PostgreSQL broker where they are missing; others need nothing."""
    if isinstance(broker, BoundedPostgresBroker):
        with broker.pool.connection() as connection, connection.cursor() as cursor:
            init_postgres_schema(cursor)


def prepare_patiently(broker: Broker) -> None:
    """Wait, if need be, until the broker's server can be reached."""
    pause = GrowingPause(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    while True:
        try:
            prepare_broker(broker)
        except BROKER_AWAY as error:
            if pause.is_first:
                log.warning("broker_away", error=type(error).__name__)
        else:
            return
        time.sleep(pause.next_seconds())
