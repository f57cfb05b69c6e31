"""A page of emails by what is searched, the newest first; how PostgreSQL finds it fast in millions.

Without words an index in the order of the list has it. With words there are two ways. Of a rare one
the index of words has all that match, which are few, and they are put into order. A common one is
met soon by walking from the newest email on, entry by entry. The planner's statistics say which way
is tried first. A walk goes `WALKED` emails far, and farther where it met some; where that is all
there are in that state or span, it was enough.
"""

import json
from typing import Any

import attrs

from app.api.search import Cursor, Search
from app.jobs.transitions.common import Database
from app.models.incoming_email import ProcessingStatus, SyncStatus
from app.search.entries import catch_up

SUMMARY_COLUMNS = """
id, zendesk_ticket_id, processing_status, from_email, from_name, subject, received_at, created_at,
queued_at, started_at, completed_at, next_attempt_at, retry_count, processing_error, sync_status,
sync_error, sync_retry_count, sync_next_attempt_at, synced_at,
CASE WHEN json_typeof(attachment_urls) = 'array' THEN json_array_length(attachment_urls) ELSE 0 END
    AS files
"""

# As many entries are read through the index of words in the time of a walk.
FEW = 25_000
WALKED = 10_000
FURTHER = 8
COUNTED_AT_MOST = 10_000


@attrs.frozen
class Page:
    """Some emails of a list, and whether there are more on either side."""

    rows: list[dict[str, Any]]
    has_newer: bool
    has_older: bool

    @property
    def first(self) -> Cursor:
        return _place(self.rows[0])

    @property
    def last(self) -> Cursor:
        return _place(self.rows[-1])


async def find_page(
    database: Database,
    search: Search,
    *,
    limit: int,
    after: Cursor | None = None,
    before: Cursor | None = None,
) -> Page:
    """The emails after a place in the list, or those just before one.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    if search.asks_index() is None:
        query, parameters = page_query(search, limit=limit + 1, after=after, before=before)
        rows = await database.fetch(query, *parameters)
    else:
        await catch_up(database)
        rows = await _by_words(database, search, limit + 1, after, before)
    found = [dict(row) for row in rows[:limit]]
    is_cut = len(rows) > limit
    if before is not None:
        return Page(found[::-1], has_newer=is_cut, has_older=True)
    return Page(found, has_newer=after is not None, has_older=is_cut)


def page_query(
    search: Search, *, limit: int, after: Cursor | None = None, before: Cursor | None = None
) -> tuple[str, list[object]]:
    """The SQL of a page, and its parameters.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    parameters: list[object] = []
    query = _in_order(search, SUMMARY_COLUMNS, limit, after, before, parameters)
    return query, parameters


async def count_up_to(database: Database, search: Search, most: int = COUNTED_AT_MOST) -> int:
    """How many emails are meant; `most + 1` where there are more.

    Raises:
        SearchError: a filter that PostgreSQL cannot take.
    """
    parameters: list[object] = []
    where = search.where(parameters)
    count: int = await database.fetchval(
        f"SELECT count(*) FROM (SELECT FROM incoming_emails WHERE {where} LIMIT {most + 1:d}) AS _",  # noqa: S608 - of constants
        *parameters,
    )
    return count


def walk_query(
    search: Search,
    *,
    limit: int,
    after: Cursor | None = None,
    before: Cursor | None = None,
    walked: int = WALKED,
) -> tuple[str, list[object]]:
    """The SQL that walks from the newest email on, and looks at the entry of each."""
    parameters: list[object] = [search.asks_index()]
    walk = _in_order(_by_columns(search), "id, received_at", walked, after, before, parameters)
    candidates = f"""
SELECT near.id, near.received_at FROM ({walk}) AS near
CROSS JOIN LATERAL (
    SELECT words FROM search_entries WHERE email = near.id OFFSET 0
) AS entry
WHERE entry.words @@ $1::text::tsquery
"""  # noqa: S608 - of constants
    return _look_up(candidates, search, limit, before is not None, parameters), parameters


def index_query(
    search: Search, *, limit: int, after: Cursor | None = None, before: Cursor | None = None
) -> tuple[str, list[object]]:
    """The SQL that has all that match from the index of words."""
    parameters: list[object] = [search.asks_index()]
    span = Search(received_from=search.received_from, received_until=search.received_until)
    where = span.where(parameters) + _beyond("email", after, before, parameters)
    candidates = f"""
SELECT email AS id, received_at FROM search_entries
WHERE words @@ $1::text::tsquery AND {where}
"""  # noqa: S608 - of constants
    return _look_up(candidates, search, limit, before is not None, parameters), parameters


async def _by_words(
    database: Database, search: Search, limit: int, after: Cursor | None, before: Cursor | None
) -> list[Any]:
    if await _estimate(database, search) > FEW:
        for walked in (WALKED, WALKED * FURTHER):
            query, parameters = walk_query(
                search, limit=limit, after=after, before=before, walked=walked
            )
            rows = await database.fetch(query, *parameters)
            if len(rows) >= limit or await _is_all(database, search, after, before, walked):
                return rows
            if len(rows) * FURTHER < limit:
                break
    query, parameters = index_query(search, limit=limit, after=after, before=before)
    return await database.fetch(query, *parameters)


async def _estimate(database: Database, search: Search) -> int:
    """How many entries the planner expects to match, by its statistics of the commonest words."""
    plan = await database.fetchval(
        "EXPLAIN (FORMAT JSON) SELECT FROM search_entries WHERE words @@ $1::text::tsquery",
        search.asks_index(),
    )
    rows: int = json.loads(plan)[0]["Plan"]["Plan Rows"]
    return rows


def _by_columns(search: Search) -> Search:
    """What of a search an index of the emails has in the order of the list, or in a short one."""
    status = search.status
    if search.error_words or search.failure is not None:
        # No other state has an error.
        is_possible = not status or ProcessingStatus.FAILED in status
        status = (ProcessingStatus.FAILED,) if is_possible else status
    return Search(
        status=status,
        ticket_id=search.ticket_id,
        from_email=search.from_email,
        sync_status=search.sync_status if search.sync_status is SyncStatus.FAILED else None,
        received_from=search.received_from,
        received_until=search.received_until,
    )


def _look_up(
    candidates: str, search: Search, limit: int, is_upwards: bool, parameters: list[object]
) -> str:
    """Looks one candidate up after the other, in the order of the list, until there are enough."""
    where = search.where(parameters, by_index=False)
    direction = "ASC" if is_upwards else "DESC"
    return f"""
SELECT found.* FROM (
    {candidates} ORDER BY received_at {direction}, id {direction} OFFSET 0
) AS candidate
CROSS JOIN LATERAL (
    SELECT {SUMMARY_COLUMNS} FROM incoming_emails WHERE id = candidate.id AND {where} OFFSET 0
) AS found
ORDER BY candidate.received_at {direction}, candidate.id {direction} LIMIT {limit:d}
"""  # noqa: S608 - of constants


async def _is_all(
    database: Database, search: Search, after: Cursor | None, before: Cursor | None, walked: int
) -> bool:
    """Whether the walk went to the end."""
    parameters: list[object] = []
    near = _by_columns(search)
    walk = _in_order(near, "id, received_at", walked, after, before, parameters)
    count: int = await database.fetchval(f"SELECT count(*) FROM ({walk}) AS near", *parameters)  # noqa: S608
    return count < walked


def _in_order(
    search: Search,
    columns: str,
    limit: int,
    after: Cursor | None,
    before: Cursor | None,
    parameters: list[object],
) -> str:
    direction = "DESC" if before is None else "ASC"
    order = f"ORDER BY received_at {direction}, id {direction} LIMIT {limit:d}"

    def one_list(part: Search) -> str:
        where = part.where(parameters) + _beyond("id", after, before, parameters)
        return f"SELECT {columns} FROM incoming_emails WHERE {where} {order}"  # noqa: S608

    # The index on state and time has one state's emails in the order of the list, several states'
    # not: with those the planner may read the archive in the order of time and drop most of it.
    states = dict.fromkeys(search.status)
    parts = [one_list(attrs.evolve(search, status=(state,))) for state in states] or [
        one_list(search)
    ]
    return parts[0] if len(parts) == 1 else f"({') UNION ALL ('.join(parts)}) {order}"


def _beyond(
    id_column: str, after: Cursor | None, before: Cursor | None, parameters: list[object]
) -> str:
    place = after or before
    if place is None:
        return ""
    parameters += [place.received_at, place.id]
    comparison = "<" if after is not None else ">"
    values = f"(${len(parameters) - 1}::timestamptz, ${len(parameters)}::uuid)"
    return f" AND (received_at, {id_column}) {comparison} {values}"


def _place(row: dict[str, Any]) -> Cursor:
    return Cursor(row["received_at"], row["id"])
