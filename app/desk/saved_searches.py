"""Searches that a person gave a name: shown above the list of emails, each a link."""

from uuid import UUID

import attrs

from app.api.search_text import read_search
from app.errors import MailroomError
from app.i18n.texts import gettext as _
from app.jobs.transitions.common import Database

LONGEST_NAME = 60
MOST_SAVED = 50

SELECT = "SELECT id, name, search FROM saved_searches WHERE user_id = $1 ORDER BY lower(name), id"
# A name that is there already gets the new search.
SAVE = """
INSERT INTO saved_searches (id, user_id, name, search)
SELECT gen_random_uuid(), $1::int, $2::text, $3::text
WHERE (SELECT count(*) FROM saved_searches WHERE user_id = $1 AND name <> $2::text) < $4
ON CONFLICT (user_id, name) DO UPDATE SET search = excluded.search
RETURNING id
"""
REMOVE = "DELETE FROM saved_searches WHERE id = $1 AND user_id = $2"


class NotSavedError(MailroomError):
    """A search was not saved; the message says why."""


@attrs.frozen
class SavedSearch:
    """One of a person's."""

    id: UUID
    name: str
    search: str


async def find_saved(database: Database, user_id: int) -> list[SavedSearch]:
    """A person's searches, by name."""
    return [SavedSearch(*row) for row in await database.fetch(SELECT, user_id)]


async def save(database: Database, user_id: int, name: str, search: str) -> None:
    """Keep a search under a name, in place of one that has it.

    Raises:
        NotSavedError: the name is empty or too long, or there are too many.
        SearchTextError: it is no search.
    """
    name = name.strip()
    if not name:
        raise NotSavedError(_("name: give the search a name to be found by"))
    if len(name) > LONGEST_NAME or "\x00" in name:
        raise NotSavedError(_("name: is longer than %(most)s characters", most=LONGEST_NAME))
    read_search(search)
    if await database.fetchval(SAVE, user_id, name, search, MOST_SAVED) is None:
        raise NotSavedError(
            _("there are %(most)s saved searches already: remove one", most=MOST_SAVED)
        )


async def remove(database: Database, user_id: int, saved_id: UUID) -> None:
    """Forget one of a person's searches; it may be gone already."""
    await database.execute(REMOVE, saved_id, user_id)
