"""What BROKER_URL names, and whether it answers.

The libraries of the brokers are large. Each broker has a module, which is imported where that
broker is first used, so that no process pays for those that it does not ask.
"""

import importlib
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit

from app.errors import MailroomError
from app.settings import Settings

if TYPE_CHECKING:
    from dramatiq.middleware import Middleware

    from app.jobs.watched_broker import WatchedBroker

MODULES = {
    "postgresql": "app.jobs.postgres_broker",
    "redis": "app.jobs.redis_broker",
    "amqp": "app.jobs.rabbitmq_broker",
}
OTHER_SCHEMES = {"postgres": "postgresql", "rediss": "redis", "amqps": "amqp"}


class BrokerUrlError(MailroomError):
    """BROKER_URL names no broker that Mailroom can use."""


class BrokerAwayError(MailroomError):
    """The broker cannot be reached."""


class BrokerModule(Protocol):
    """What the module of each broker has."""

    ERRORS: tuple[type[Exception], ...]
    """What its library raises where the broker is away."""

    @staticmethod
    def make(url: str, queue: str, middleware: "list[Middleware]") -> "WatchedBroker":
        """Make the broker. No connection is opened yet."""

    @staticmethod
    def try_once(url: str) -> None:
        """Connect as the workers do, and see that it takes what they will ask."""


def broker_scheme(settings: Settings) -> str:
    """`postgresql`, `redis` or `amqp`, without the letter for TLS.

    Raises:
        BrokerUrlError: BROKER_URL starts with something else.
    """
    if not settings.broker_url:
        return "postgresql"
    given = urlsplit(settings.broker_url).scheme
    scheme = OTHER_SCHEMES.get(given, given)
    if scheme not in MODULES:
        raise BrokerUrlError(
            f"BROKER_URL starts with {given}://: it has to be postgresql://, redis://, "
            "rediss://, amqp:// or amqps://"
        )
    return scheme


def broker_module(settings: Settings) -> BrokerModule:
    """The module of the broker that BROKER_URL names.

    Raises:
        BrokerUrlError: BROKER_URL starts with something else.
    """
    return cast(BrokerModule, importlib.import_module(MODULES[broker_scheme(settings)]))


def try_broker(settings: Settings, database_url: str) -> None:
    """Connect to the broker once, as the workers do, and see that it takes what they will ask.

    Raises:
        BrokerAwayError: it cannot be reached, or refuses us.
        BrokerUrlError: BROKER_URL names none.
    """
    module = broker_module(settings)
    away: tuple[type[Exception], ...] = (*module.ERRORS, OSError)
    try:
        module.try_once(settings.broker_url or database_url)
    except away as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise BrokerAwayError(
            f"the broker at BROKER_URL does not answer ({reason}): see that it runs and that the "
            "URL is right"
        ) from error
