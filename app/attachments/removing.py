"""Any state -> (none): rows of `email_attachments` that are erased, and the bytes that follow them.

`app.attachments.contents` removes the bytes from the store.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from app.attachments.transitions import Database


def erasing(condition: str) -> str:
    """Two parts of a WITH that remove the rows of files (`file` in the condition, in SQL).

    The email is gone, or has the file no longer. Its bytes follow when this has committed, unless
    another email has the same. Who is about to settle an earlier request for the same bytes sees by
    its time that there is a new one. The order keeps two who erase from waiting for each other.
    """
    return f"""files_gone AS (
    DELETE FROM email_attachments AS file WHERE {condition} RETURNING sha256
),
bytes_gone AS (
    INSERT INTO attachment_erasures (sha256, asked_at)
    SELECT sha256, clock_timestamp() FROM files_gone WHERE sha256 IS NOT NULL
    GROUP BY sha256 ORDER BY sha256
    ON CONFLICT (sha256) DO UPDATE SET asked_at = clock_timestamp()
)"""  # noqa: S608 - a constant


ERASE = f"""
WITH {erasing("file.email = ANY($1::uuid[])")}
SELECT count(*) FROM files_gone
"""  # noqa: S608 - a constant
ERASE_UNLISTED = f"WITH {erasing('file.email = $1 AND file.url <> ALL($2::text[])')} SELECT"
FORGET = """
INSERT INTO attachment_erasures (sha256, asked_at) VALUES ($1, clock_timestamp())
ON CONFLICT (sha256) DO UPDATE SET asked_at = clock_timestamp()
"""


async def erase(database: Database, email_ids: Collection[UUID]) -> int:
    """Any state -> (none): nothing is left of the files of these emails, whoever fetches them.

    Returns:
        How many there were.
    """
    count: int = await database.fetchval(ERASE, email_ids)
    return count


async def erase_unlisted(database: Database, email_id: UUID, left: Sequence[Any]) -> None:
    """Any state -> (none), for the files of an email that are not among these entries."""
    urls = [str(item.get("url", "")) if isinstance(item, dict) else str(item) for item in left]
    await database.execute(ERASE_UNLISTED, email_id, urls)


async def forget(database: Database, sha256: str) -> None:
    """Have a content removed that was stored for nobody, unless an email has it."""
    await database.execute(FORGET, sha256)
