"""Changes of a row of `email_attachments`: pending -> kept | skipped | failed | flagged, and back.

Each is one guarded statement. A worker's ones also name the token of its claim, so that one whose
lease ran out changes nothing. While a file is fetched, `next_attempt_at` is the end of the lease:
what a vanished worker held falls due by itself. Nothing here touches a column of the email.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.attachments.reasons import Reason
from app.attachments.store import storage_key
from app.models.email_attachment import AttachmentState
from app.telemetry.metrics import ATTACHMENT_BYTES, ATTACHMENTS

Database: TypeAlias = (
    "asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    " | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)

# A file whose second try failed may be away for hours: what was a moment's trouble is over by then.
TRIES_WAITED_FOR = 2
IS_WAITED_FOR = f"""file.state = 'pending' AND (
    file.tries < {TRIES_WAITED_FOR} OR (file.tries = {TRIES_WAITED_FOR} AND file.token IS NOT NULL)
)"""

# Bytes of the email's other files, as far as they are known.
_OTHERS = """(
    SELECT COALESCE(sum(size), 0)::bigint FROM email_attachments AS other
    WHERE other.email = file.email AND other.id <> file.id AND other.sha256 IS NOT NULL
)"""

# The oldest first. SKIP LOCKED keeps workers apart. A host that asked to be left alone is.
CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT id FROM email_attachments
    WHERE state = 'pending' AND next_attempt_at <= now()
        AND COALESCE(substring(url FROM '^[a-zA-Z]+://([^/?#]*)'), '') <> ALL($2::text[])
    ORDER BY next_attempt_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE email_attachments AS file
SET token = gen_random_uuid(), tries = tries + 1, next_attempt_at = clock_timestamp() + $3
WHERE id = ANY (ARRAY(SELECT id FROM due))
RETURNING id, token, email, url, claimed_content_type, claimed_size, tries,
    {_OTHERS} AS bytes_of_email, (
    SELECT zendesk_ticket_id FROM incoming_emails WHERE incoming_emails.id = file.email
) AS ticket_id, clock_timestamp() - created_at AS age
"""  # noqa: S608 - a constant

_MINE = "file.id = $1 AND file.token = $2 AND file.state = 'pending'"


def _changing(first: str, assignments: str, condition: str = "true") -> str:
    """The change of a file that this worker fetches, in SQL; it tells of how many files it was.

    What it, or one that was killed before it, may have stored under another hash leaves the store,
    unless another email has it.

    Args:
        first: a SELECT that is run before the row is read.
    """
    return f"""
WITH first AS MATERIALIZED ({first}),
was AS MATERIALIZED (
    SELECT file.id, file.sha256 FROM first, email_attachments AS file WHERE {_MINE} FOR UPDATE
),
changed AS (
    UPDATE email_attachments AS file SET {assignments} FROM was
    WHERE file.id = was.id AND {condition}
    RETURNING was.sha256 AS before, file.sha256 AS after
),
bytes_gone AS (
    INSERT INTO attachment_erasures (sha256, asked_at)
    SELECT before, clock_timestamp() FROM changed WHERE before IS DISTINCT FROM after
        AND before IS NOT NULL
    ON CONFLICT (sha256) DO UPDATE SET asked_at = clock_timestamp()
)
SELECT count(*) FROM changed
"""  # noqa: S608 - a constant


EXTEND = """
UPDATE email_attachments AS file SET next_attempt_at = clock_timestamp() + $3
FROM unnest($1::uuid[], $2::uuid[]) AS held (id, token)
WHERE file.id = held.id AND file.token = held.token AND file.state = 'pending'
RETURNING file.token
"""

# Whoever removes a content that nobody needs holds this lock while it looks and removes; so either
# it sees the hash here, or the store is asked after it has removed the content.
LOCK_CONTENT = "pg_advisory_xact_lock(hashtextextended('mailroom content ' || {}::text, 0))"
# The files of one email come at the same time, and each has to be counted by the next.
LOCK_FILES = "SELECT pg_advisory_xact_lock(hashtextextended('mailroom files of ' || $1::text, 0))"
INTEND = _changing(
    f"SELECT {LOCK_CONTENT.format('$3')}",
    "sha256 = $3, size = $4",
    f"$4 + {_OTHERS} <= $5",
)

KEEP = f"""
UPDATE email_attachments AS file
SET state = 'kept', sha256 = $3, size = $4, content_type = $5, storage_key = $6, reason = NULL,
    detail = NULL, token = NULL, fetched_at = now(), ended_at = now()
WHERE {_MINE}
"""  # noqa: S608 - a constant

GIVE_UP = _changing(
    "SELECT",
    "state = $3, reason = $4, detail = $5, sha256 = NULL, size = NULL, token = NULL,"
    " ended_at = now()",
)

# The reason stays with the row until the next try ends, so that it can be seen what it waits for.
POSTPONE = _changing(
    "SELECT",
    "reason = COALESCE($3, file.reason),"
    " detail = CASE WHEN $3 IS NULL THEN file.detail ELSE $4 END,"
    " sha256 = NULL, size = NULL, token = NULL, next_attempt_at = clock_timestamp() + $5,"
    " tries = CASE WHEN $6 THEN file.tries ELSE file.tries - 1 END",
)

_AGAIN = """
    state = 'pending', reason = NULL, detail = NULL, tries = 0, next_attempt_at = now(),
    token = NULL, sha256 = NULL, size = NULL, storage_key = NULL, fetched_at = NULL,
    ended_at = NULL
"""
REFETCH = f"""
UPDATE email_attachments SET {_AGAIN}
WHERE id = ANY($1::uuid[]) AND state = ANY($2::text[]) AND url ~* '^https?://.'
RETURNING id
"""  # noqa: S608 - a constant
# The store was read without a lock: by now the file may have other bytes.
REFETCH_DAMAGED = f"""
UPDATE email_attachments AS file SET {_AGAIN}
FROM unnest($1::uuid[], $2::text[]) AS damaged (id, sha256)
WHERE file.id = damaged.id AND file.state = 'kept' AND file.sha256 = damaged.sha256
    AND url ~* '^https?://.'
RETURNING file.id
"""  # noqa: S608 - a constant


@attrs.frozen
class ClaimedFile:
    """A file that this process fetches, for as long as its token stands."""

    id: UUID
    token: UUID
    email_id: UUID
    url: str = attrs.field(repr=False)
    claimed_content_type: str | None
    claimed_size: int | None
    tries: int
    """This one counted."""
    bytes_of_email: int
    """Of the email's other files, as far as they are known."""
    ticket_id: str | None
    age: timedelta
    """Since its row was made."""


async def claim(
    database: Database, *, limit: int, lease: timedelta, resting: Collection[str] = ()
) -> list[ClaimedFile]:
    """Take files that are due, the oldest first.

    Args:
        resting: hosts that are left alone, as they stand in URLs.
    """
    rows = await database.fetch(CLAIM, limit, resting, lease)
    return [ClaimedFile(*row) for row in rows]


async def extend(
    database: Database, files: Collection[ClaimedFile], *, lease: timedelta
) -> set[UUID]:
    """Keep claims alive. Returns the tokens of those that still stand."""
    rows = await database.fetch(
        EXTEND, [file.id for file in files], [file.token for file in files], lease
    )
    return {row["token"] for row in rows}


async def intend(
    pool: "asyncpg.Pool[asyncpg.Record]",
    file: ClaimedFile,
    *,
    sha256: str,
    size: int,
    most_bytes: int,
) -> bool:
    """pending -> pending: these bytes are about to be stored, so nobody may remove them.

    Args:
        most_bytes: of the email's files together.

    Returns:
        Whether the claim stood, as for all that follow, and there is room for them.
    """
    async with pool.acquire() as connection, connection.transaction():
        # By a statement of its own: the next one sees what was counted under this lock before.
        await connection.execute(LOCK_FILES, str(file.email_id))
        changed = await connection.fetchval(INTEND, file.id, file.token, sha256, size, most_bytes)
    return bool(changed)


async def keep(
    database: Database, file: ClaimedFile, *, sha256: str, size: int, content_type: str | None
) -> bool:
    """pending -> kept."""
    tag = await database.execute(
        KEEP, file.id, file.token, sha256, size, content_type, storage_key(sha256)
    )
    stood = tag == "UPDATE 1"
    ATTACHMENTS.labels(AttachmentState.KEPT).inc(stood)
    ATTACHMENT_BYTES.inc(size if stood else 0)
    return stood


async def give_up(
    database: Database,
    file: ClaimedFile,
    state: AttachmentState,
    *,
    reason: Reason,
    detail: str | None = None,
) -> bool:
    """pending -> skipped, failed or flagged."""
    stood = bool(await database.fetchval(GIVE_UP, file.id, file.token, state, reason, detail))
    ATTACHMENTS.labels(state).inc(stood)
    return stood


async def postpone(
    database: Database,
    file: ClaimedFile,
    *,
    delay: timedelta,
    reason: Reason | None = None,
    detail: str | None = None,
    counts: bool = True,
) -> bool:
    """pending -> pending: try it again after a while.

    Args:
        counts: this try is one of those that a file has.
    """
    return bool(
        await database.fetchval(POSTPONE, file.id, file.token, reason, detail, delay, counts)
    )


async def refetch(
    database: Database, file_ids: Sequence[UUID], *, states: Collection[AttachmentState]
) -> list[UUID]:
    """From one of these states -> pending, with all its tries. Returns what was changed."""
    rows = await database.fetch(REFETCH, file_ids, list(states))
    return [row["id"] for row in rows]


async def refetch_damaged(database: Database, files: Collection[tuple[UUID, str]]) -> int:
    """kept -> pending, with all its tries, where it has the bytes yet that were found damaged.

    Args:
        files: each file and the SHA-256 of its bytes.

    Returns:
        How many were changed.
    """
    rows = await database.fetch(
        REFETCH_DAMAGED, [file_id for file_id, _ in files], [sha256 for _, sha256 in files]
    )
    return len(rows)
