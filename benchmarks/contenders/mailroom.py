"""Mailroom, over each of its brokers."""

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from subprocess import run
from typing import ClassVar
from uuid import uuid4

import asyncpg

from app.intake.intake import Intake
from app.settings import Settings
from benchmarks.contenders import rows
from benchmarks.contenders.contender import Contender, Email, Load, script
from benchmarks.payloads import as_body
from benchmarks.servers import Servers

# So many wait for their commit at a time while a backlog is filled.
FILLERS = 512


class Mailroom(Contender):
    """`mailroom worker`, and the Intake of the web process without its HTTP."""

    packages: ClassVar = ("mailroom", "dramatiq", "asyncpg")
    keeps = "state, times, attempts and result of each email, for good"

    def __init__(self, servers: Servers, broker: str | None = None) -> None:
        super().__init__(servers, broker)
        self.name = f"mailroom-{broker or 'postgresql'}"
        over = {"redis": "Redis", "rabbitmq": "RabbitMQ", None: "PostgreSQL"}[broker]
        self.title = f"Mailroom over {over}"

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.database_url, min_size=1, max_size=6)
        settings = Settings(_env_file=None, accept_unsigned=True)  # type: ignore[call-arg]
        self._intake = Intake(settings, self._pool)

    async def close(self) -> None:
        await self._intake.close()
        await self._pool.close()

    async def accept(self, email: Email) -> None:
        await self._intake.admit(
            as_body(email), email_id=uuid4(), signature=None, timestamp=None, invocation_id=None
        )

    async def fill(self, emails: Sequence[Email]) -> None:
        line = iter(emails)

        async def fill_on() -> None:
            for email in line:
                await self.accept(email)

        await asyncio.gather(*[fill_on() for _ in range(FILLERS)])

    def fill_finished(self, count: int) -> None:
        rows.fill_finished(self.database_url, count)

    def command(self, load: Load) -> list[str]:
        at_once = [at_once_option(), str(load.at_once)] if load.at_once else []
        return script("mailroom", "worker", "--processes", "1", *at_once)

    def environment(self, load: Load, clock: Path) -> dict[str, str]:
        return {
            **super().environment(load, clock),
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            "MAILROOM_QUEUE": self.queue,
            "MAILROOM_HOME": str(self.servers.folder / "home"),
            "MAILROOM_HANDLER": "benchmarks.peers.mailroom_handler:handle",
            "MAILROOM_LOG_LEVEL": "warning",
            # The peers fetch none.
            "MAILROOM_ATTACHMENTS": "off",
        }

    async def is_drained(self) -> bool:
        return await rows.are_all_ended(self._pool, self.began_at)

    async def completed_at(self) -> dict[int, float]:
        return await rows.completed_at(self._pool)


@cache
def at_once_option() -> str:
    """How `mailroom worker` is told how many emails it handles at once."""
    told = run(script("mailroom", "worker", "--help"), capture_output=True, text=True, check=True)
    return "--concurrency" if "--concurrency" in told.stdout else "--threads"
