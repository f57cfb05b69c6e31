"""Dramatiq alone: what the `dramatiq` command loads. The message is the whole email."""

import os
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from benchmarks.handlers import work_in_thread

url = os.environ["BENCHMARK_BROKER"]
queue = os.environ["BENCHMARK_QUEUE"]
broker = (
    RedisBroker(url=url, namespace=queue) if url.startswith("redis") else RabbitmqBroker(url=url)
)
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="email", queue_name=queue)
def handle(email: dict[str, Any]) -> None:
    """Do the work of the benchmark."""
    work_in_thread(int(email["ticket_id"]))
