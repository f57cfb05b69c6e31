"""Files that are not kept: a page of them for operators, and those of many emails fetched again."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from app.attachments import enrolling, transitions
from app.attachments.transitions import Database
from app.attachments.upkeep import File
from app.models.email_attachment import NOT_KEPT

# By ix_email_attachments_state; the time alone leads into it.
FIND_PAGE = """
SELECT id, email, position, filename, state, reason, detail, size, sha256, tries, ended_at
FROM email_attachments
WHERE {condition} AND ended_at <= COALESCE({at}::timestamptz, 'infinity')
    AND (ended_at, id) < (COALESCE({at}::timestamptz, 'infinity'), {id})
    {of_emails}
ORDER BY ended_at DESC, id DESC LIMIT {limit}
"""
NOT_KEPT_OF = """
SELECT id, email FROM email_attachments WHERE email = ANY($1::uuid[]) AND state = ANY($2::text[])
"""


async def find_page(
    database: Database,
    condition: str,
    of_emails: str | None,
    parameters: Sequence[object],
    *,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[File]:
    """Files that ended in a state; those that ended last first, after that one.

    Args:
        condition: which of them, in SQL; it names the state.
        of_emails: of which emails, in SQL; None: of any, and of those that have gone.
        parameters: of both conditions.
    """
    place = after or (None, UUID(int=2**128 - 1))
    names = ("at", "id", "limit")
    statement = FIND_PAGE.format(
        condition=condition,
        of_emails=f"AND email IN (SELECT id FROM incoming_emails WHERE {of_emails})"  # noqa: S608
        if of_emails
        else "",
        **{name: f"${number}" for number, name in enumerate(names, len(parameters) + 1)},
    )
    rows = await database.fetch(statement, *parameters, *place, limit)
    return [File(**row) for row in rows]


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
