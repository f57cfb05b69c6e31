"""PgQueuer, with nothing but its queue, and doing what Mailroom does."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from subprocess import run
from typing import ClassVar
from uuid import uuid4

import asyncpg
import psycopg
from pgqueuer import Queries
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver

from benchmarks.contenders import rows
from benchmarks.contenders.contender import Contender, Email, Load, script
from benchmarks.payloads import as_body
from benchmarks.servers import Servers

INSERT = """
INSERT INTO incoming_emails (
    id, zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject, raw_body_text,
    received_at, raw_payload, attachment_urls, idempotency_key
)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::text[], $8::timestamptz[], $9::json[], $10::json[], $11::text[])
"""
ROWS = 1_000
# Each job that ended leaves two lines: that it was queued, and how it ended.
FINISHED = """
INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint, aggregated)
SELECT -number, status::pgqueuer_status, 0, 'email', true
FROM generate_series(1, %s) AS number, unnest(ARRAY['queued', 'successful']) AS status
"""


class PgQueuer(Contender):
    """`pgq run`. The job's payload is the email's JSON, and is gone when it is done."""

    packages: ClassVar = ("pgqueuer", "asyncpg")
    keeps = "a line in its log that tells when each job ended"
    factory = "benchmarks.peers.pgqueuer_worker:main"

    def __init__(self, servers: Servers, batch: int) -> None:
        super().__init__(servers)
        self.batch = batch
        self.name = f"pgqueuer-{batch}"
        self.title = f"PgQueuer, batches of {batch}"

    def set_up_schema(self) -> None:
        for words in (("install",), ("autovac",)):
            run(
                script("pgq", "--pg-dsn", self.database_url, *words),
                check=True,
                capture_output=True,
            )

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.database_url, min_size=1, max_size=6)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        self._numbers: dict[int, int] = {}

    async def close(self) -> None:
        await self._pool.close()

    async def accept(self, email: Email) -> None:
        (job,) = await self._queries.enqueue("email", as_body(email))
        self._numbers[job] = int(email["ticket_id"])

    async def fill(self, emails: Sequence[Email]) -> None:
        for first in range(0, len(emails), ROWS):
            part = emails[first : first + ROWS]
            jobs = await self._queries.enqueue(
                ["email"] * len(part), [as_body(email) for email in part], [0] * len(part)
            )
            self._numbers.update(
                (job, int(email["ticket_id"])) for job, email in zip(jobs, part, strict=True)
            )

    def fill_finished(self, count: int) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(FINISHED, [count])

    def command(self, load: Load) -> list[str]:
        at_once = []
        if load.at_once:
            # It must be at least two batches.
            most = max(load.at_once, 2 * self.batch)
            at_once = ["--max-concurrent-tasks", str(most)]
        return [
            *(sys.executable, "-m", "benchmarks.peers.pgqueuer_run", self.factory),
            *("--batch-size", str(self.batch), *at_once),
        ]

    async def is_drained(self) -> bool:
        return not await self._pool.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)")

    async def completed_at(self) -> dict[int, float]:
        rows = await self._pool.fetch(
            "SELECT job_id, extract(epoch FROM created)::float8 AS at"
            " FROM pgqueuer_log WHERE status = 'successful'"
        )
        return {self._numbers[row["job_id"]]: row["at"] for row in rows}


class PgQueuerSameWork(PgQueuer):
    """`pgq run` with a handler that records state, times and text in Mailroom's table."""

    keeps = "state, times and result of each email, for good; no leases, no tries"
    factory = "benchmarks.peers.pgqueuer_same_work:main"

    def __init__(self, servers: Servers, batch: int) -> None:
        super().__init__(servers, batch)
        self.name = f"pgqueuer-same-work-{batch}"
        self.title = f"PgQueuer doing the same work, batches of {batch}"

    async def accept(self, email: Email) -> None:
        await self.fill([email])

    async def fill(self, emails: Sequence[Email]) -> None:
        for first in range(0, len(emails), ROWS):
            made = [_row(email) for email in emails[first : first + ROWS]]
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(INSERT, *zip(*made, strict=True))
                await Queries(AsyncpgDriver(connection)).enqueue(
                    ["email"] * len(made), [str(row[0]).encode() for row in made], [0] * len(made)
                )

    def fill_finished(self, count: int) -> None:
        super().fill_finished(count)
        rows.fill_finished(self.database_url, count)

    async def completed_at(self) -> dict[int, float]:
        return await rows.completed_at(self._pool)


def _row(email: Email) -> tuple[object, ...]:
    return (
        uuid4(),
        email["ticket_id"],
        email["webhook_id"],
        email["from_email"],
        email["from_name"],
        email["subject"],
        email["body_text"],
        datetime.now(UTC),
        as_body(email).decode(),
        json.dumps(email["attachments"]),
        uuid4().hex,
    )
