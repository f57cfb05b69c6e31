"""How an email's row is laid out."""

import random
from typing import TypeAlias

import asyncpg

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

OUT_OF_LINE = """
SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'incoming_emails'::regclass
"""


async def test_a_body_stands_apart_from_what_changes(pool: Pool) -> None:
    """A text that would have its place in the row once it is compressed."""
    body = 3 * "".join(random.Random(1).choices([chr(n) for n in range(0x4E00, 0x9FA5)], k=300))
    await pool.execute(
        "INSERT INTO incoming_emails (from_email, raw_body_text) VALUES ('erika@example.com', $1)",
        body,
    )
    size = await pool.fetchval(OUT_OF_LINE)
    assert size > 0
    for state in ("queued", "processing", "completed"):
        await pool.execute("UPDATE incoming_emails SET processing_status = $1", state)
    assert await pool.fetchval("SELECT raw_body_text FROM incoming_emails") == body
    assert await pool.fetchval(OUT_OF_LINE) == size
