"""(none) -> pending, or skipped: each file that an email names gets a row."""

from collections.abc import Collection
from uuid import UUID

from app.attachments.reasons import Reason
from app.attachments.transitions import Database
from app.models.fit import is_unreadable


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
                WHEN {is_unreadable("files")} THEN '[null]'
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


async def enrol(database: Database, email_ids: Collection[UUID], *, most: int) -> int:
    """(none) -> pending, or skipped: make a row of each file that has none.

    Returns:
        How many were made.
    """
    return len(await enrol_each(database, email_ids, most=most))


async def enrol_each(database: Database, email_ids: Collection[UUID], *, most: int) -> list[UUID]:
    """The same. Returns the email of each that was made."""
    rows = await database.fetch(ENROL, email_ids, most)
    return [row["email"] for row in rows]
