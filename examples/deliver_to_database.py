"""Delivers finished emails to a table of another PostgreSQL, in place of HTTP.

    MAILROOM_SYNC=examples.deliver_to_database:deliver
    MAILROOM_SYNC_BATCH=100
    CASES_DATABASE_URL=postgresql://...

Each result of an email has a number. One that comes twice, or after a later one, changes nothing;
an email that was erased goes.
"""

import json
import os
from collections.abc import Sequence

import asyncpg

from app.sync.event import Event

TABLE = """
CREATE TABLE IF NOT EXISTS finished_emails (
    id uuid PRIMARY KEY,
    version integer NOT NULL,
    ticket_id text NOT NULL,
    subject text,
    body text,
    data jsonb,
    received_at timestamptz NOT NULL
)
"""
UPSERT = """
INSERT INTO finished_emails AS known (id, version, ticket_id, subject, body, data, received_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::timestamptz)
ON CONFLICT (id) DO UPDATE SET version = excluded.version, ticket_id = excluded.ticket_id,
    subject = excluded.subject, body = excluded.body, data = excluded.data,
    received_at = excluded.received_at
WHERE known.version < excluded.version
"""
DELETE = "DELETE FROM finished_emails WHERE id = $1"

# An event loop, and so this process, has one.
_POOLS: dict[str, "asyncpg.Pool[asyncpg.Record]"] = {}


async def deliver(events: Sequence[Event]) -> None:
    """Write some events with one commit; Mailroom tries them again if this raises."""
    pool = await _pool()
    async with pool.acquire() as connection, connection.transaction():
        for event in sorted(events, key=lambda event: (event.email_id, event.at)):
            if event.type == "email.erased":
                await connection.execute(DELETE, event.email_id)
            else:
                await connection.execute(UPSERT, *_row(event))


def _row(event: Event) -> tuple[object, ...]:
    data = event.data
    return (
        event.email_id,
        data["version"],
        data["ticket_id"],
        data["subject"],
        data["cleaned_body"],
        json.dumps(data["extracted_data"]),
        data["received_at"],
    )


async def _pool() -> "asyncpg.Pool[asyncpg.Record]":
    url = os.environ["CASES_DATABASE_URL"]
    if url not in _POOLS:
        pool = await asyncpg.create_pool(url, min_size=0, max_size=5)
        await pool.execute(TABLE)
        _POOLS[url] = pool
    return _POOLS[url]
