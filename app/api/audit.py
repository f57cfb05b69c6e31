"""`/api/v1/audit`: who did what, for programs that gather it."""

from datetime import datetime
from typing import Annotated, Any

import attrs
from litestar import Request, get

from app.api.job_schemas import EXAMPLE_ID
from app.api.parts import EVERYWHERE, EXAMPLE_CURSOR, ApiController, invalid, query
from app.api.search import Cursor, CursorError
from app.api.tokens import acting, needs
from app.audit.acts import Act
from app.audit.finding import AuditSearch, Entry, find
from app.audit.log import write
from app.database.engine import running_pool
from app.http.strict import refuse_unknown_parameters
from app.models.api_token import Scope
from app.models.audit_entry import Door, Result

DEFAULT_PAGE = 100
LARGEST_PAGE = 1_000


@attrs.frozen(kw_only=True)
class AuditPage:
    """Entries, the newest first."""

    items: list[Entry]
    next_cursor: str | None


class AuditController(ApiController):
    """The audit log: every act of a person or a program."""

    path = "/api/v1/audit"
    tags = ["Audit"]  # noqa: RUF012 - Litestar declares it so
    guards = [needs(Scope.OPERATE), refuse_unknown_parameters]  # noqa: RUF012

    @get(summary="List what was done", operation_id="listAudit", responses=EVERYWHERE)
    async def list_entries(
        self,
        request: Request[Any, Any, Any],
        act: Annotated[Act | None, query("What was done", "email.retry")] = None,
        actor: Annotated[str | None, query("Who: user, token or account", "olga")] = None,
        on: Annotated[str | None, query("The id or name it was done to", EXAMPLE_ID)] = None,
        door: Annotated[Door | None, query("By what", "page")] = None,
        result: Annotated[Result | None, query("What became of it", "refused")] = None,
        since: Annotated[datetime | None, query("Not before", "2026-11-23T00:00:00Z")] = None,
        until: Annotated[datetime | None, query("Before", "2026-11-24T00:00:00Z")] = None,
        limit: Annotated[
            int, query("Most of a page", DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)
        ] = DEFAULT_PAGE,
        cursor: Annotated[
            str | None, query("`next_cursor` of the page before", EXAMPLE_CURSOR.encode())
        ] = None,
    ) -> AuditPage:
        """Users, tokens and accounts by name; what it was done to by id. Each page leaves an entry
        itself: the log is exported."""
        try:
            place = Cursor.decode(cursor) if cursor is not None else None
        except CursorError as wrong:
            raise invalid("cursor", str(wrong)) from wrong
        search = AuditSearch(
            act=act, actor=actor, on=on, door=door, result=result, since=since, until=until
        )
        pool = running_pool()
        try:
            items, last = await find(
                pool, search, limit=limit, after=(place.received_at, place.id) if place else None
            )
        except OverflowError as wrong:
            raise invalid("since", "lies outside the calendar, or `until` does") from wrong
        await write(pool, acting(request), Act.AUDIT_EXPORT)
        return AuditPage(items=items, next_cursor=Cursor(*last).encode() if last else None)
