"""Every change of `email_attachments`: pending -> kept | skipped | failed | flagged, and back.

Each is one guarded statement. A worker's ones also name the token of its claim, so that one whose
lease ran out changes nothing. While a file is fetched, `next_attempt_at` is the end of the lease:
what a vanished worker held falls due by itself. Nothing here touches a column of the email.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, TypeAlias
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

# Escapes that PostgreSQL's json stores and refuses to read: NUL, and surrogates without their
# other half. An email that holds them was not stored by the Intake; it must not stop all others.
_UNREADABLE = r"""
    regexp_replace(files::text, '\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}', '', 'gi')
    ~* '\\u(d[89a-f]|0000)'"""


def enrolled(emails: str, most: str) -> str:
    """The INSERT that makes a row of each file that has none; both arguments are SQL.

    What is no URL, and what comes after the first `most` files, is skipped at once, with a reason.
    A file that joins an email later gets the next position: that of none changes.

    Args:
        emails: a relation with the columns `id` and `files`, which is the email's list.
        most: files of one email that are fetched.
    """
    return f"""
INSERT INTO email_attachments (
    email, position, url, filename, claimed_content_type, claimed_size, is_inline,
    state, reason, ended_at
)
SELECT email_id, position, url, filename, content_type, size, is_inline,
    CASE WHEN reason IS NULL THEN 'pending' ELSE 'skipped' END, reason,
    CASE WHEN reason IS NOT NULL THEN now() END
FROM (
    SELECT *, CASE
        WHEN url !~* '^https?://.' THEN '{Reason.NOT_A_URL}'
        WHEN position >= {most} THEN '{Reason.TOO_MANY}'
        END AS reason
    FROM (
        SELECT email.id AS email_id, url, filename, content_type, size, is_inline,
            (known.positions + row_number() OVER (PARTITION BY email.id ORDER BY place) - 1)::int
                AS position
        FROM {emails} AS email
        CROSS JOIN LATERAL (
            SELECT COALESCE(max(position) + 1, 0) AS positions
            FROM email_attachments AS there WHERE there.email = email.id
        ) AS known
        CROSS JOIN LATERAL (
            SELECT place,
                COALESCE(
                    entry ->> 'url',
                    CASE WHEN json_typeof(entry) = 'string' THEN entry #>> '{{}}' END, ''
                ) AS url,
                entry ->> 'filename' AS filename,
                entry ->> 'content_type' AS content_type,
                CASE WHEN entry ->> 'size' ~ '^[0-9]{{1,18}}$' THEN (entry ->> 'size')::bigint
                    END AS size,
                COALESCE(entry ->> 'inline' = 'true', false) AS is_inline
            FROM json_array_elements(CASE
                WHEN json_typeof(files) <> 'array' THEN '[]'
                WHEN {_UNREADABLE} THEN '[null]'
                ELSE files END) WITH ORDINALITY AS item (entry, place)
        ) AS named
        WHERE NOT EXISTS (
            SELECT FROM email_attachments AS there
            WHERE there.email = email.id AND there.url = named.url
        )
    ) AS placed
) AS judged
ON CONFLICT DO NOTHING
RETURNING email"""  # noqa: S608 - a constant


# Locked, so that no email is erased meanwhile: its new rows would outlive it.
ENROL = f"""
WITH emails AS MATERIALIZED (
    SELECT id, attachment_urls AS files FROM incoming_emails
    WHERE id = ANY($1::uuid[]) AND attachment_urls IS NOT NULL AND erased_at IS NULL
    ORDER BY id
    FOR SHARE
)
{enrolled("emails", "$2::int")}
"""  # noqa: S608 - a constant

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
INTEND = f"""
WITH locked AS MATERIALIZED (SELECT {LOCK_CONTENT.format("$3")})
UPDATE email_attachments AS file SET sha256 = $3, size = $4 FROM locked
WHERE {_MINE} AND $4 + {_OTHERS} <= $5
"""  # noqa: S608 - a constant

KEEP = f"""
UPDATE email_attachments AS file
SET state = 'kept', sha256 = $3, size = $4, content_type = $5, storage_key = $6, reason = NULL,
    detail = NULL, token = NULL, fetched_at = now(), ended_at = now()
WHERE {_MINE}
"""  # noqa: S608 - a constant

GIVE_UP = f"""
UPDATE email_attachments AS file
SET state = $3, reason = $4, detail = $5, sha256 = NULL, size = NULL, token = NULL,
    ended_at = now()
WHERE {_MINE}
"""  # noqa: S608 - a constant

# The reason stays with the row until the next try ends, so that it can be seen what it waits for.
POSTPONE = f"""
UPDATE email_attachments AS file
SET reason = COALESCE($3, reason), detail = CASE WHEN $3 IS NULL THEN detail ELSE $4 END,
    sha256 = NULL, size = NULL, token = NULL, next_attempt_at = clock_timestamp() + $5,
    tries = CASE WHEN $6 THEN tries ELSE tries - 1 END
WHERE {_MINE}
"""  # noqa: S608 - a constant

# Whose bytes are damaged or missing is asked for by its id; else nothing that is kept is fetched
# again.
REFETCH = """
UPDATE email_attachments
SET state = 'pending', reason = NULL, detail = NULL, tries = 0, next_attempt_at = now(),
    token = NULL, sha256 = NULL, size = NULL, storage_key = NULL, fetched_at = NULL,
    ended_at = NULL
WHERE id = ANY($1::uuid[]) AND state = ANY($2::text[]) AND url ~* '^https?://.'
RETURNING id
"""


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


ERASE = f"WITH {erasing('file.email = ANY($1::uuid[])')} SELECT"
ERASE_UNLISTED = f"WITH {erasing('file.email = $1 AND file.url <> ALL($2::text[])')} SELECT"
FORGET = """
INSERT INTO attachment_erasures (sha256, asked_at) VALUES ($1, clock_timestamp())
ON CONFLICT (sha256) DO UPDATE SET asked_at = clock_timestamp()
"""


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


async def enrol(database: Database, email_ids: Collection[UUID], *, most: int) -> int:
    """(none) -> pending, or skipped: make a row of each file that has none.

    Returns:
        How many were made.
    """
    return len(await database.fetch(ENROL, email_ids, most))


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
        tag = await connection.execute(INTEND, file.id, file.token, sha256, size, most_bytes)
    return _changed(tag)


async def keep(
    database: Database, file: ClaimedFile, *, sha256: str, size: int, content_type: str | None
) -> bool:
    """pending -> kept."""
    stood = _changed(
        await database.execute(
            KEEP, file.id, file.token, sha256, size, content_type, storage_key(sha256)
        )
    )
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
    stood = _changed(await database.execute(GIVE_UP, file.id, file.token, state, reason, detail))
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
    return _changed(
        await database.execute(POSTPONE, file.id, file.token, reason, detail, delay, counts)
    )


async def refetch(
    database: Database, file_ids: Sequence[UUID], *, states: Collection[AttachmentState]
) -> list[UUID]:
    """From one of these states -> pending, with all its tries. Returns what was changed."""
    rows = await database.fetch(REFETCH, file_ids, list(states))
    return [row["id"] for row in rows]


async def erase(database: Database, email_ids: Collection[UUID]) -> None:
    """Any state -> (none): nothing is left of the files of these emails, whoever fetches them."""
    await database.execute(ERASE, email_ids)


async def erase_unlisted(database: Database, email_id: UUID, left: Sequence[Any]) -> None:
    """Any state -> (none), for the files of an email that are not among these entries."""
    urls = [str(item.get("url", "")) if isinstance(item, dict) else str(item) for item in left]
    await database.execute(ERASE_UNLISTED, email_id, urls)


async def forget(database: Database, sha256: str) -> None:
    """Have a content removed that was stored for nobody, unless an email has it."""
    await database.execute(FORGET, sha256)


def _changed(tag: str) -> bool:
    return tag == "UPDATE 1"
