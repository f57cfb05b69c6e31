"""The original design of this system, which was built on Dramatiq and synchronous SQLAlchemy."""

from collections.abc import Sequence
from typing import ClassVar
from uuid import uuid4

import asyncpg

from benchmarks.contenders import rows
from benchmarks.contenders.contender import Email
from benchmarks.contenders.dramatiq import Dramatiq
from benchmarks.servers import Servers

FIELDS = ("ticket_id", "webhook_id", "from_email", "from_name", "subject", "body_text")
INSERT = """
INSERT INTO incoming_emails (
    id, zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject, raw_body_text,
    received_at, queued_at, processing_status
)
SELECT *, now(), now(), 'queued' FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]
)
"""


class OriginalDesign(Dramatiq):
    """Synchronous SQLAlchemy and Dramatiq on Redis, with a commit before and one after."""

    packages: ClassVar = ("dramatiq", "sqlalchemy", "psycopg")
    needs = ("sqlalchemy",)
    keeps = "state and times of each email; one that is lost between commit and message is stuck"
    module = "benchmarks.peers.original"
    actor = "process_email"

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers, "redis")
        self.name = "original-design"
        self.title = "The original design"

    async def open(self) -> None:
        await super().open()
        self._pool = await asyncpg.create_pool(self.database_url, min_size=1, max_size=6)

    async def close(self) -> None:
        await self._pool.close()
        await super().close()

    async def accept(self, email: Email) -> None:
        await self.fill([email])

    async def fill(self, emails: Sequence[Email]) -> None:
        for first in range(0, len(emails), 1_000):
            made = [(uuid4(), email) for email in emails[first : first + 1_000]]
            await self._pool.execute(
                INSERT,
                [row for row, _ in made],
                *[[email[field] for _, email in made] for field in FIELDS],
            )
            for row, _ in made:
                self._send(str(row))

    async def is_drained(self) -> bool:
        return await super().is_drained() and await rows.are_all_ended(self._pool, self.began_at)

    async def completed_at(self) -> dict[int, float]:
        return await rows.completed_at(self._pool)
