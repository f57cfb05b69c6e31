"""What Mailroom's table tells of the emails, for every contender that keeps its state there."""

from datetime import datetime

import asyncpg
import psycopg

from app.jobs.transitions.common import in_state_since

# Smaller than those that are measured, so that millions fit on a small disk; spread over a year.
FINISHED = """
INSERT INTO incoming_emails (
    zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject, raw_body_text,
    cleaned_body, extracted_data, raw_payload, idempotency_key, delivery_signature,
    processing_status, received_at, queued_at, started_at, completed_at, processed_at, claims
)
SELECT (number %% 300000)::text, number::text, 'person-' || number %% 50000 || '@example.com',
    'Erika Mustermann', 'Wo bleibt mein Päckchen ' || number || '?', repeat('Guten Tag. ', 20),
    repeat('Guten Tag. ', 20), '{}', json_build_object('ticket_id', number), 'key-' || number,
    'signature-' || number, CASE WHEN number %% 500 = 0 THEN 'failed' ELSE 'completed' END,
    at, at, at, at, at, 1
FROM (
    SELECT number, now() - interval '1 year' * (%(total)s - number) / %(total)s AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number
) AS numbers
"""
PIECE = 100_000


def fill_finished(database_url: str, count: int) -> None:
    """Insert so many emails that ended."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for first in range(1, count + 1, PIECE):
            last = min(count, first + PIECE - 1)
            connection.execute(FINISHED, {"first": first, "last": last, "total": count})


ON_ITS_WAY = " OR ".join(
    f"EXISTS (SELECT FROM incoming_emails WHERE {in_state_since(state, '$1')})"
    for state in ("received", "queued", "processing")
)


async def are_all_ended(pool: "asyncpg.Pool[asyncpg.Record]", since: datetime) -> bool:
    """Whether no email that was received since then is on its way. What went through before is not
    walked over: while a transaction is open elsewhere its entries stay in the index on state and
    time, and the look would take longer than the work."""
    return not await pool.fetchval(f"SELECT {ON_ITS_WAY}", since)


async def completed_at(pool: "asyncpg.Pool[asyncpg.Record]") -> dict[int, float]:
    """When each email was completed, by number."""
    rows = await pool.fetch(
        "SELECT zendesk_ticket_id, extract(epoch FROM completed_at)::float8 AS at"
        " FROM incoming_emails WHERE processing_status = 'completed'"
    )
    return {int(row["zendesk_ticket_id"]): row["at"] for row in rows}
