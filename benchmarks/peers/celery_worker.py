"""Celery: the app that `celery worker` loads. No result is kept, since nobody asks for it."""

import os
from typing import Any

from celery import Celery

from benchmarks.handlers import work_in_thread

url = os.environ["BENCHMARK_BROKER"]
queue = os.environ["BENCHMARK_QUEUE"]
is_redis = url.startswith("redis")

options: dict[str, Any] = {"global_keyprefix": queue} if is_redis else {}
if is_redis and os.environ["BENCHMARK_AT_ONCE"]:
    # Each greenlet that acknowledges takes a connection, of ten if nothing is said.
    options["max_connections"] = int(os.environ["BENCHMARK_AT_ONCE"]) + 100

app = Celery("benchmark", broker=url)
app.conf.update(
    task_default_queue=queue,
    task_default_queue_type="classic" if is_redis else "quorum",
    task_ignore_result=True,
    # Acknowledged once it is done, so that a killed worker loses nothing: as all others do.
    task_acks_late=True,
    # For many short tasks: https://docs.celeryq.dev/en/stable/userguide/optimizing.html
    worker_prefetch_multiplier=int(os.environ["BENCHMARK_PREFETCH"]),
    broker_transport_options=options,
)


@app.task(name="email")
def handle(email: dict[str, Any]) -> None:
    """Do the work of the benchmark."""
    work_in_thread(int(email["ticket_id"]))
