"""Celery, over Redis and over RabbitMQ."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import celery

from benchmarks.contenders.contender import Contender, Email, Load, script
from benchmarks.contenders.queues import Waiting
from benchmarks.servers import Servers

# Processes of the default pool. One works while the other is fed.
PROCESSES = 2
# Tasks that are fetched ahead for each place: more for short ones, as its guide advises.
PREFETCH_SHORT = 64
PREFETCH_LONG = 1


class Celery(Contender):
    """`celery worker`. The task's argument is the email."""

    packages: ClassVar = ("celery", "kombu")
    needs = ("gevent",)
    keeps = "nothing"

    def __init__(self, servers: Servers, broker: str) -> None:
        super().__init__(servers, broker)
        self.name = f"celery-{broker}"
        self.title = f"Celery over {'Redis' if broker == 'redis' else 'RabbitMQ'}"

    async def open(self) -> None:
        self._app = celery.Celery(broker=self.broker_url)
        options = {"global_keyprefix": self.queue} if self.broker == "redis" else {}
        self._app.conf.update(
            task_default_queue=self.queue,
            broker_transport_options=options,
            task_default_queue_type="quorum" if self.broker == "rabbitmq" else "classic",
        )
        keys = [f"{self.queue}{self.queue}", f"{self.queue}unacked"]
        self._waiting = Waiting(self.broker_url, queue=self.queue, keys=keys)

    async def close(self) -> None:
        self._waiting.close()
        self._app.close()

    async def accept(self, email: Email) -> None:
        self._app.send_task("email", (email,), ignore_result=True)

    async def fill(self, emails: Sequence[Email]) -> None:
        for email in emails:
            await self.accept(email)

    def command(self, load: Load) -> list[str]:
        pool = ["--concurrency", str(PROCESSES)]
        if load.at_once:
            pool = ["--pool", "gevent", "--concurrency", str(load.at_once)]
        return script(
            *("celery", "--app", "benchmarks.peers.celery_worker", "worker"),
            *("--loglevel", "WARNING", "--without-gossip", "--without-mingle", *pool),
        )

    def environment(self, load: Load, clock: Path) -> dict[str, str]:
        prefetch = PREFETCH_LONG if load.at_once else PREFETCH_SHORT
        return {
            **super().environment(load, clock),
            "BENCHMARK_PREFETCH": str(prefetch),
            "BENCHMARK_AT_ONCE": str(load.at_once or ""),
        }

    async def is_drained(self) -> bool:
        return self._waiting.is_empty()
