"""Procrastinate."""

import os
from collections.abc import Sequence
from subprocess import run
from typing import ClassVar

import procrastinate

from benchmarks.contenders.contender import Contender, Email, Load, script
from benchmarks.servers import PROJECT

APP = "benchmarks.peers.procrastinate_worker.app"
# Of asynchronous jobs at once where nothing is said; its own default is one.
CONCURRENCY = 30


class Procrastinate(Contender):
    """`procrastinate worker`. The job's arguments are the email."""

    name = "procrastinate"
    title = "Procrastinate"
    packages: ClassVar = ("procrastinate", "psycopg")
    keeps = "state, arguments and events of each job, until they are deleted"

    def set_up_schema(self) -> None:
        run(
            script("procrastinate", f"--app={APP}", "schema", "--apply"),
            env={
                **os.environ,
                "PYTHONPATH": str(PROJECT),
                "BENCHMARK_DATABASE": self.database_url,
            },
            check=True,
            capture_output=True,
        )

    async def open(self) -> None:
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=self.database_url, max_size=6)
        )
        await self._app.open_async()
        self._task = self._app.configure_task("email")
        self._numbers: dict[int, int] = {}

    async def close(self) -> None:
        await self._app.close_async()

    async def accept(self, email: Email) -> None:
        self._numbers[await self._task.defer_async(email=email)] = int(email["ticket_id"])

    async def fill(self, emails: Sequence[Email]) -> None:
        for first in range(0, len(emails), 1_000):
            part = emails[first : first + 1_000]
            ids = await self._task.batch_defer_async(*[{"email": email} for email in part])
            self._numbers.update(
                (job, int(email["ticket_id"])) for job, email in zip(ids, part, strict=True)
            )

    def command(self, load: Load) -> list[str]:
        return script(
            *("procrastinate", f"--app={APP}", "worker"),
            f"--concurrency={load.at_once or CONCURRENCY}",
        )

    async def is_drained(self) -> bool:
        (row,) = await self._app.connector.execute_query_all_async(
            "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS is"
        )
        return not row["is"]

    async def completed_at(self) -> dict[int, float]:
        rows = await self._app.connector.execute_query_all_async(
            "SELECT job_id, extract(epoch FROM at)::float8 AS at"
            " FROM procrastinate_events WHERE type = 'succeeded'"
        )
        return {self._numbers[row["job_id"]]: row["at"] for row in rows}
