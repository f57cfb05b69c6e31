"""PgQueuer doing what Mailroom does: the email's row tells its state, times and text.

The payload of a job is the row's id; the row and the job were inserted by one transaction.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.models import Job

from benchmarks.handlers import work

CLAIM = """
UPDATE incoming_emails
SET processing_status = 'processing', started_at = clock_timestamp(), claims = claims + 1,
    updated_at = now()
WHERE id = $1
RETURNING zendesk_ticket_id, from_email, subject, raw_body_text, raw_body_html, attachment_urls
"""
COMPLETE = """
UPDATE incoming_emails
SET processing_status = 'completed', completed_at = now(), processed_at = now(),
    extracted_data = $2, cleaned_body = $3, updated_at = now()
WHERE id = $1
"""


@asynccontextmanager
async def main() -> AsyncIterator[PgQueuer]:
    """The worker whose handler records how it went."""
    async with asyncpg.create_pool(
        os.environ["BENCHMARK_DATABASE"], min_size=2, max_size=6
    ) as pool:
        queuer = PgQueuer.from_asyncpg_pool(pool)

        @queuer.entrypoint("email")
        async def handle(job: Job) -> None:
            assert job.payload is not None
            email_id = job.payload.decode()
            email = await pool.fetchrow(CLAIM, email_id)
            assert email is not None
            await work(int(email["zendesk_ticket_id"]))
            await pool.execute(COMPLETE, email_id, "{}", None)

        yield queuer
