"""Procrastinate: the app that `procrastinate worker` loads."""

import os
from typing import Any

import procrastinate

from benchmarks.handlers import work

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCHMARK_DATABASE"], max_size=6)
)


@app.task(name="email")
async def handle(email: dict[str, Any]) -> None:
    """Do the work of the benchmark."""
    await work(int(email["ticket_id"]))
