"""The audit log at `/audit`, for administrators: found by what they type, and exported as CSV."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import asyncpg
import attrs
from litestar import Request, get
from litestar.exceptions import ValidationException
from litestar.response import Redirect, Stream, Template

from app.api.search import Cursor, CursorError
from app.api.search_text import SearchTextError
from app.audit.acts import Act
from app.audit.finding import AuditSearch, Entry, find, find_all
from app.audit.log import write
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import AUDIT_PATH, address
from app.desk.audit_text import AUDIT_QUALIFIERS, read_audit_search
from app.desk.csv_export import harmless
from app.desk.pages import PageController, actor_of, page, see_role, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.audit_entry import AuditEntry
from app.models.operator_account import Role

LISTED = 50
# Words have no index.
LONGEST_SEARCH_SECONDS = 5
BOUND = f"SET LOCAL statement_timeout = '{LONGEST_SEARCH_SECONDS}s'"
CHIPS = (
    (N_("Refused"), "result:refused"),
    (N_("Sign-ins"), "what:session.sign_in"),
    (N_("Users"), "user."),
    (N_("Erasures"), "erase"),
    (N_("Commands"), "by:command"),
)
COLUMNS = [field.name for field in attrs.fields(Entry)]


class AuditPages(PageController):
    """The list, whose address is the search; and all that it finds as a file."""

    path = AUDIT_PATH

    @get()
    async def list_all(
        self, request: Request[Any, Any, Any], q: str = "", after: str | None = None
    ) -> Template | Redirect:
        """The entries that a search finds, the newest first."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        await see_role(request, user, Role.ADMIN)
        try:
            place = Cursor.decode(after) if after else None
        except CursorError as wrong:
            raise ValidationException(f"after: {wrong}") from wrong
        entries: list[Entry] = []
        following: str | None = None
        wrong_search: str | None = None
        try:
            search = read_audit_search(q)
            async with running_pool().acquire() as connection, connection.transaction():
                await connection.execute(BOUND)
                entries, last = await find(
                    connection,
                    search,
                    limit=LISTED,
                    after=(place.received_at, place.id) if place else None,
                )
                following = Cursor(*last).encode() if last else None
        except SearchTextError as wrong:
            wrong_search = str(wrong)
        except asyncpg.QueryCanceledError:
            wrong_search = _(
                "it was not searched to its end in %(seconds)s seconds: narrow it down, as by "
                "at:2026-11-01.. or who:olga",
                seconds=LONGEST_SEARCH_SECONDS,
            )
        except CANNOT_ASK as error:
            raise database_is_away() from error
        here = address(AUDIT_PATH)
        return page(
            request,
            "audit.html",
            user,
            table=AuditEntry,
            q=q,
            entries=entries,
            wrong=wrong_search,
            is_first=place is None,
            chips=[
                (_(name), f"{here}?{urlencode({'q': text})}", text == q) for name, text in CHIPS
            ],
            qualifiers=AUDIT_QUALIFIERS,
            acts=list(Act),
            here=here,
            export=f"{here}/export?{urlencode({'q': q})}",
            following=f"{here}?{urlencode({'q': q, 'after': following})}" if following else None,
        )

    @get("/export", media_type="text/csv")
    async def export(self, request: Request[Any, Any, Any], q: str = "") -> Stream | Redirect:
        """All that a search finds, as CSV."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        await see_role(request, user, Role.ADMIN)
        try:
            search = read_audit_search(q)
        except SearchTextError as wrong:
            raise ValidationException(f"q: {wrong}") from wrong
        try:
            await write(running_pool(), actor_of(request, user), Act.AUDIT_EXPORT)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return Stream(
            _lines(search),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="audit.csv"'},
        )


async def _lines(search: AuditSearch) -> AsyncIterator[str]:
    yield _line(COLUMNS)
    async for entries in find_all(running_pool(), search):
        yield "".join(_line([_cell(getattr(entry, name)) for name in COLUMNS]) for entry in entries)


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return harmless(json.dumps(value, ensure_ascii=False))
    return harmless("" if value is None else str(value))


def _line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
