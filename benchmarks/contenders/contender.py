"""What the benchmark of jobs asks of each contender, and what the sober ones have in common."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs

from benchmarks.clock import VARIABLE
from benchmarks.handlers import KIND
from benchmarks.servers import (
    MIGRATED,
    PROJECT,
    RABBITMQ_URL,
    REDIS_URL,
    Servers,
    clear_rabbitmq,
    clear_redis,
    why_unreachable,
)

Email = dict[str, Any]

BROKERS = {"redis": REDIS_URL, "rabbitmq": RABBITMQ_URL}


@attrs.frozen
class Load:
    """What a worker is to do."""

    handler: str
    """One of `benchmarks.handlers.KINDS`."""

    at_once: int | None
    """How many emails one process may handle at once; None: as the contender runs by default."""


class Contender(ABC):
    """One product, set up in one way.

    Args:
        servers: what it may use.
        broker: `redis` or `rabbitmq`, where it is asked to use one.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    """Whose versions are told."""

    needs: tuple[str, ...] = ()
    """Modules that its worker imports, and nobody here."""

    keeps: str
    """What can be looked up of a job when it is done."""

    def __init__(self, servers: Servers, broker: str | None = None) -> None:
        self.servers = servers
        self.broker = broker
        self.queue = ""
        self.database_url = ""
        self.began_at = datetime.now(UTC)
        """When the measurement began."""
        self.keeps_database = False
        """Whether each measurement begins with what the one before left in the database."""

    @property
    def broker_url(self) -> str:
        """Where its broker is; "" where the database is all it uses."""
        return BROKERS[self.broker] if self.broker else ""

    def why_left_out(self) -> str | None:
        """Why it cannot take part here; None where it can."""
        for module in self.needs:
            if not find_spec(module):
                return f"{module} is not installed: pip install 'mailroom[benchmarks]'"
        return why_unreachable(self.broker_url) if self.broker else None

    @property
    def database(self) -> str:
        """The name of its database."""
        return self.name.replace("-", "_")

    def set_up(self) -> None:
        """Prepare the database that each measurement begins with a copy of."""
        self.database_url = self.servers.copy_database(f"{self.database}_template", MIGRATED)
        self.set_up_schema()

    def set_up_schema(self) -> None:
        """Create what it needs besides the migrated database. Called once."""
        return

    async def begin(self) -> None:
        """Begin a measurement with an empty queue."""
        self.queue = f"bench-{uuid4().hex[:12]}"
        self.began_at = datetime.now(UTC)
        if not self.keeps_database:
            template = f"{self.database}_template"
            self.database_url = self.servers.copy_database(self.database, template)
        await self.open()

    async def finish(self) -> None:
        """End a measurement, and leave nothing of it on servers that are not ours."""
        await self.close()
        if self.broker == "redis":
            clear_redis(self.queue)
        elif self.broker == "rabbitmq":
            clear_rabbitmq(self.queue)

    @abstractmethod
    async def open(self) -> None:
        """Open what gives it work."""

    @abstractmethod
    async def close(self) -> None:
        """Close that again."""

    @abstractmethod
    async def accept(self, email: Email) -> None:
        """Have it take one email durably, as its documentation says it is done."""

    @abstractmethod
    async def fill(self, emails: Sequence[Email]) -> None:
        """Have it take many emails. How long that takes is not measured."""

    def fill_finished(self, count: int) -> None:
        """Put so many jobs that ended long ago into its tables.

        Raises:
            NotImplementedError: it keeps none.
        """
        raise NotImplementedError(f"{self.name} keeps nothing of what has ended")

    @abstractmethod
    def command(self, load: Load) -> list[str]:
        """The command of one worker process."""

    @abstractmethod
    async def is_drained(self) -> bool:
        """Whether it says itself that nothing is left to be done."""

    async def completed_at(self) -> dict[int, float]:
        """When each email was completed by its own records, by number; empty if it has none."""
        return {}

    def environment(self, load: Load, clock: Path) -> dict[str, str]:
        """The environment of its worker."""
        return {
            **os.environ,
            VARIABLE: str(clock),
            KIND: load.handler,
            "PYTHONPATH": str(PROJECT),
            "BENCHMARK_DATABASE": self.database_url,
            "BENCHMARK_BROKER": self.broker_url,
            "BENCHMARK_QUEUE": self.queue,
        }


def script(name: str, *arguments: str) -> list[str]:
    """A console script of this Python's environment."""
    return [str(Path(sys.executable).parent / name), *arguments]
