"""Contents that no email needs: removed at once where something was erased, else after a while."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import structlog

from app.attachments.store import AttachmentStore, Content
from app.attachments.transitions import LOCK_CONTENT

log = structlog.get_logger(__name__)

ERASED_AT_ONCE = 100

# In the order of the hashes: many may go at once, and those that went before are not passed again.
SELECT_ERASED = """
SELECT sha256, asked_at FROM attachment_erasures WHERE sha256 > $1 ORDER BY sha256 LIMIT $2
"""
SELECT_UNREFERENCED = """
SELECT asked.sha256 FROM unnest($1::text[]) AS asked (sha256)
WHERE NOT EXISTS (SELECT FROM email_attachments AS file WHERE file.sha256 = asked.sha256)
"""
IS_REFERENCED = "SELECT EXISTS (SELECT FROM email_attachments WHERE sha256 = $1)"
# Not where it was asked for again since, by somebody who was seen to need it just now.
SETTLE_ERASURES = """
WITH settled AS MATERIALIZED (
    SELECT sha256 FROM attachment_erasures
    JOIN unnest($1::text[], $2::timestamptz[]) AS done (sha256, asked_at) USING (sha256, asked_at)
    ORDER BY sha256
    FOR UPDATE OF attachment_erasures SKIP LOCKED
)
DELETE FROM attachment_erasures WHERE sha256 = ANY (ARRAY(SELECT sha256 FROM settled))
"""


async def has_erased(pool: "asyncpg.Pool[asyncpg.Record]") -> bool:
    """Whether there are bytes to be removed."""
    return bool(await pool.fetch(SELECT_ERASED, "", 1))


async def remove_erased(pool: "asyncpg.Pool[asyncpg.Record]", store: AttachmentStore) -> int:
    """Remove what was erased, unless another email has the same bytes.

    Returns:
        How many contents were removed.

    Raises:
        StoreError: the store refuses; what is left is removed the next time.
    """
    removed, after = 0, ""
    while rows := await pool.fetch(SELECT_ERASED, after, ERASED_AT_ONCE):
        began = time.monotonic()
        for row in rows:
            removed += await remove_unless_needed(pool, store, row["sha256"])
        hashes, moments = [row["sha256"] for row in rows], [row["asked_at"] for row in rows]
        await pool.execute(SETTLE_ERASURES, hashes, moments)
        after = rows[-1]["sha256"]
        if len(rows) == ERASED_AT_ONCE:
            # Very many are no reason to take all of the database's time.
            await asyncio.sleep(time.monotonic() - began)
    if removed:
        log.info("erased_contents_removed", contents=removed)
    return removed


async def remove_unless_needed(
    pool: "asyncpg.Pool[asyncpg.Record]", store: AttachmentStore, sha256: str
) -> bool:
    """Remove a content that no email has. Returns whether it was removed.

    Raises:
        StoreError: the store refuses.
    """
    async with pool.acquire() as connection, connection.transaction():
        # Whoever is about to store the same says so under this lock, before it looks for it.
        await connection.execute(f"SELECT {LOCK_CONTENT.format('$1')}", sha256)
        is_needed = await connection.fetchval(IS_REFERENCED, sha256)
        if not is_needed:
            await store.delete(sha256)
    return not is_needed


async def unreferenced(
    pool: "asyncpg.Pool[asyncpg.Record]", store: AttachmentStore, *, before: datetime
) -> AsyncIterator[Content]:
    """Contents that were stored before a moment, and that no email has now.

    Raises:
        StoreError: the store cannot be listed.
    """
    batch: dict[str, Content] = {}
    async for content in store.contents():
        if content.stored_at < before:
            batch[content.sha256] = content
        if len(batch) == ERASED_AT_ONCE:
            for found in await pool.fetch(SELECT_UNREFERENCED, list(batch)):
                yield batch[found["sha256"]]
            batch.clear()
    for found in await pool.fetch(SELECT_UNREFERENCED, list(batch)):
        yield batch[found["sha256"]]
