"""What the audit log is searched by, and the pages of what is found, the newest first."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.audit.acts import Act
from app.audit.log import Database, Pool
from app.models.audit_entry import ActorKind, Door, Result
from app.models.fit import containing, fit_text, in_utc, read_object

PAGE = 1_000
Place: TypeAlias = tuple[datetime, UUID]


@attrs.frozen(kw_only=True)
class Entry:
    """Something that somebody did, or was refused."""

    id: UUID
    at: datetime
    actor_kind: ActorKind
    actor: str
    user_id: int | None
    door: Door
    address: str | None
    act: str
    object: str | None
    result: Result
    changed: int | None
    details: dict[str, Any] | None
    request_id: UUID | None


COLUMNS = ", ".join(field.name for field in attrs.fields(Entry))


@attrs.frozen(kw_only=True)
class AuditSearch:
    """Which entries are meant; all that is given has to hold."""

    act: Act | None = None
    actor: str | None = None
    on: str | None = None
    """The id or name that it was done to."""
    door: Door | None = None
    result: Result | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    words: Sequence[str] = ()
    """Each stands in who did it, in what was done, or in what it was done to."""

    def query(self, *, limit: int, after: Place | None) -> tuple[str, list[object]]:
        """The SQL of a page, and its parameters. A text that PostgreSQL cannot take finds nothing,
        since nothing is like it."""
        conditions, parameters = ["true"], list[object]()

        def add(condition: str, *values: object) -> None:
            numbers = range(len(parameters) + 1, len(parameters) + 1 + len(values))
            conditions.append(condition.format(*(f"${number}" for number in numbers)))
            parameters.extend(values)

        texts = (self.actor, self.on, *self.words)
        if any(text is not None and text != fit_text(text) for text in texts):
            conditions.append("false")
        else:
            for column, value in (("actor", self.actor), ("object", self.on)):
                if value is not None:
                    add(f"{column} = {{}}", value)
            for word in self.words:
                like = "(actor ILIKE {0} OR act ILIKE {0} OR object ILIKE {0})"
                add(like, containing(word))
        for name in ("act", "door", "result"):
            if (value := getattr(self, name)) is not None:
                add(f"{name} = {{}}", value.value)
        if self.since is not None:
            add("at >= {}", in_utc(self.since))
        if self.until is not None:
            add("at < {}", in_utc(self.until))
        if after is not None:
            add("(at, id) < ({}, {})", *after)
        where = " AND ".join(conditions)
        select = f"SELECT {COLUMNS} FROM audit_entries WHERE {where}"  # noqa: S608 - of constants
        return f"{select} ORDER BY at DESC, id DESC LIMIT {limit:d}", parameters


async def find(
    database: "Database", search: AuditSearch, *, limit: int, after: Place | None = None
) -> tuple[list[Entry], Place | None]:
    """A page, the newest first, and the place after which the next page begins."""
    query, parameters = search.query(limit=limit + 1, after=after)
    rows = await database.fetch(query, *parameters)
    page = [_entry(row) for row in rows[:limit]]
    return page, (page[-1].at, page[-1].id) if len(rows) > limit else None


async def find_all(pool: "Pool", search: AuditSearch) -> AsyncIterator[list[Entry]]:
    """All that is meant, page by page."""
    after: Place | None = None
    while True:
        page, after = await find(pool, search, limit=PAGE, after=after)
        yield page
        if after is None:
            return


def _entry(row: "asyncpg.Record") -> Entry:
    fields = dict(row)
    details = fields.pop("details")
    kinds = {
        "actor_kind": ActorKind(fields["actor_kind"]),
        "door": Door(fields["door"]),
        "result": Result(fields["result"]),
    }
    return Entry(**{**fields, **kinds}, details=None if details is None else read_object(details))
