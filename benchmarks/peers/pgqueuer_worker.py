"""PgQueuer: what `pgq run` loads. The payload of a job is the email's JSON."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.models import Job

from benchmarks.handlers import work


@asynccontextmanager
async def main() -> AsyncIterator[PgQueuer]:
    """The worker that keeps nothing but its own tables."""
    async with asyncpg.create_pool(
        os.environ["BENCHMARK_DATABASE"], min_size=2, max_size=6
    ) as pool:
        queuer = PgQueuer.from_asyncpg_pool(pool)

        @queuer.entrypoint("email")
        async def handle(job: Job) -> None:
            assert job.payload is not None
            await work(int(json.loads(job.payload)["ticket_id"]))

        yield queuer
