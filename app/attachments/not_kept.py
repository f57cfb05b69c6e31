"""Files that are not kept: a page of them for operators, and those of many emails fetched again."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from app.attachments import enrolling, transitions
from app.attachments.transitions import Database
from app.attachments.upkeep import NOT_KEPT, File
from app.models.email_attachment import AttachmentState

# By ix_email_attachments_state; the time alone leads into it.
FIND_PAGE = """
SELECT id, email, position, filename, state, reason, detail, size, sha256, tries, ended_at
FROM email_attachments
WHERE state = $1 AND ended_at <= COALESCE($2::timestamptz, 'infinity')
    AND (ended_at, id) < (COALESCE($2::timestamptz, 'infinity'), $3)
ORDER BY ended_at DESC, id DESC LIMIT $4
"""
NOT_KEPT_OF = """
SELECT id, email FROM email_attachments WHERE email = ANY($1::uuid[]) AND state = ANY($2::text[])
"""


async def find_page(
    database: Database,
    state: AttachmentState,
    *,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[File]:
    """Files that ended in a state; those that ended last first, after that one."""
    place = after or (None, UUID(int=2**128 - 1))
    return [File(**row) for row in await database.fetch(FIND_PAGE, state.value, *place, limit)]


async def fetch_again_of(
    database: Database, email_ids: Collection[UUID], *, most: int
) -> set[UUID]:
    """Have the files of emails fetched that are not kept.

    Args:
        email_ids: few, since each email may name a thousand files.
        most: files of one email that are fetched, where none has a row yet.

    Returns:
        The emails of which something is fetched now.
    """
    fetched = set(await enrolling.enrol_each(database, email_ids, most=most))
    rows = await database.fetch(NOT_KEPT_OF, email_ids, list(NOT_KEPT))
    again = await transitions.refetch(database, [row["id"] for row in rows], states=NOT_KEPT)
    return fetched | {row["email"] for row in rows if row["id"] in set(again)}
