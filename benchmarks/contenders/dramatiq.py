"""Dramatiq alone."""

from collections.abc import Sequence
from typing import Any, ClassVar

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contenders.contender import Contender, Email, Load, script
from benchmarks.contenders.queues import Waiting
from benchmarks.servers import Servers

# What the command would take is 8 threads a processor.
THREADS = 8


class Dramatiq(Contender):
    """`dramatiq` with one process. The message is the email."""

    packages: ClassVar = ("dramatiq",)
    keeps = "nothing"
    module = "benchmarks.peers.dramatiq_worker"
    actor = "email"

    def __init__(self, servers: Servers, broker: str) -> None:
        super().__init__(servers, broker)
        self.name = f"dramatiq-{broker}"
        self.title = f"Dramatiq alone over {'Redis' if broker == 'redis' else 'RabbitMQ'}"

    async def open(self) -> None:
        self._broker: Any
        if self.broker == "redis":
            self._broker = RedisBroker(url=self.broker_url, namespace=self.queue)
        else:
            self._broker = RabbitmqBroker(url=self.broker_url)
        self._broker.declare_queue(self.queue)
        # The messages stay here until they are acknowledged.
        keys = [f"{self.queue}:{self.queue}.msgs"]
        self._waiting = Waiting(self.broker_url, queue=self.queue, keys=keys)

    async def close(self) -> None:
        self._waiting.close()
        self._broker.close()

    async def accept(self, email: Email) -> None:
        self._send(email)

    async def fill(self, emails: Sequence[Email]) -> None:
        for email in emails:
            self._send(email)

    def _send(self, argument: object) -> None:
        self._broker.enqueue(
            dramatiq.Message(
                queue_name=self.queue,
                actor_name=self.actor,
                args=(argument,),
                kwargs={},
                options={},
            )
        )

    def command(self, load: Load) -> list[str]:
        threads = str(load.at_once or THREADS)
        return script("dramatiq", self.module, "--processes", "1", "--threads", threads)

    async def is_drained(self) -> bool:
        return self._waiting.is_empty()
