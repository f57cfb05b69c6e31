"""The emails at `/emails`: found by what an operator types, the newest first, page by page."""

import asyncio
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import attrs
from litestar import Request, get, post
from litestar.exceptions import ValidationException
from litestar.response import Redirect, Template

from app.api.email_pages import COUNTED_AT_MOST, Page, count_up_to, find_page
from app.api.search import Cursor, CursorError, Search, SearchError
from app.api.search_text import QUALIFIERS, SearchTextError, read_search
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk import saved_searches
from app.desk.addresses import EMAILS_PATH, address
from app.desk.bulk_pages import NAMES
from app.desk.completions import VALUES, find_values
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, page, to_sign_in
from app.desk.saved_searches import NotSavedError
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.formats import number
from app.i18n.texts import N_, ngettext
from app.i18n.texts import gettext as _
from app.models.incoming_email import IncomingEmail
from app.models.operator_account import Role
from app.search.entries import find_unindexed

LISTED = 50
# Every search has an index; this bounds what no statistics foresaw.
LONGEST_SEARCH_SECONDS = 5
# A count is worth no wait: without one the page says that there are more.
LONGEST_COUNT_SECONDS = 0.15
# What operators look for first.
CHIPS = (
    (N_("Failed"), "status:failed"),
    (N_("Waiting"), "status:received status:queued"),
    (N_("In work"), "status:processing"),
    (N_("With files"), "has:attachment"),
    (N_("Not delivered"), "sync:failed"),
)


@attrs.frozen
class Listed:
    """What a search brought."""

    page: Page
    count: int | None = None
    """None where it would take too long."""
    wrong: str | None = None
    """Why nothing was searched."""
    unindexed: datetime | None = None
    """What was stored before this the words of the search may not find yet."""


NOTHING = Page([], has_newer=False, has_older=False)


class EmailList(PageController):
    """The list, whose address is the search."""

    path = EMAILS_PATH

    @get()
    async def list_all(
        self,
        request: Request[Any, Any, Any],
        q: str = "",
        after: str | None = None,
        before: str | None = None,
    ) -> Template | Redirect:
        """The emails that a search finds."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        try:
            places = [Cursor.decode(text) if text else None for text in (after, before)]
        except CursorError as wrong:
            raise ValidationException(f"after, before: {wrong}") from wrong
        return await _show(request, user, q.strip(), *places)

    @post("/saved", status_code=200)
    async def save(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Save a search under a name, or forget one."""
        user = await acting_operator(request, Role.VIEWER)
        form = await request.form()
        q = str(form.get("q", ""))
        try:
            if "remove" in form:
                await saved_searches.remove(running_pool(), user.id, _id(str(form["remove"])))
            else:
                await saved_searches.save(running_pool(), user.id, str(form.get("name", "")), q)
        except (NotSavedError, SearchTextError) as error:
            return await _show(request, user, q, wrong=str(error))
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return Redirect(address_of_search(q), status_code=303)

    @get("/completions")
    async def completions(self, request: Request[Any, Any, Any]) -> dict[str, list[str]]:
        """What may follow a qualifier, of what there is lately."""
        user = await signed_in(request.scope)
        if user is None:
            return {}
        try:
            return await find_values(running_pool(), with_results=user.sees_bodies)
        except CANNOT_ASK as error:
            raise database_is_away() from error


async def _show(
    request: Request[Any, Any, Any],
    user: Operator,
    q: str,
    after: Cursor | None = None,
    before: Cursor | None = None,
    *,
    wrong: str | None = None,
) -> Template:
    try:
        saved = await saved_searches.find_saved(running_pool(), user.id)
        found = await _search(user, q, after, before)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    return page(
        request,
        "emails.html",
        user,
        table=IncomingEmail,
        q=q,
        rows=found.page.rows,
        wrong=wrong or found.wrong,
        count=_in_words(found),
        unindexed=found.unindexed,
        chips=[(_(name), address_of_search(text), text == q) for name, text in CHIPS],
        saved=[(one, address_of_search(one.search), one.search == q) for one in saved],
        save_address=f"{address(EMAILS_PATH)}/saved",
        qualifiers=QUALIFIERS,
        bulk_actions={action: _(name) for action, name in NAMES.items()},
        completions=VALUES,
        completions_address=f"{address(EMAILS_PATH)}/completions",
        newest=address_of_search(q),
        newer=_address(q, before=found.page.first) if found.page.has_newer else None,
        older=_address(q, after=found.page.last) if found.page.has_older else None,
    )


async def _search(user: Operator, q: str, after: Cursor | None, before: Cursor | None) -> Listed:
    try:
        search = read_search(q)
        user.see_that_it_may_search(search)
        async with asyncio.timeout(LONGEST_SEARCH_SECONDS):
            found = await find_page(
                running_pool(), search, limit=LISTED, after=after, before=before
            )
        if before is not None and not found.rows:
            # What was before has gone.
            return await _search(user, q, None, None)
    except (SearchTextError, SearchError) as error:
        return Listed(NOTHING, wrong=str(error))
    except TimeoutError:
        return Listed(
            NOTHING,
            wrong=_(
                "it was not searched to its end in %(seconds)s seconds: narrow it down, as by "
                "received:2026-11-01.. or status:failed",
                seconds=LONGEST_SEARCH_SECONDS,
            ),
        )
    asks_index = search.asks_index() is not None
    unindexed = await find_unindexed(running_pool()) if asks_index else None
    return Listed(found, await _count(search, found), unindexed=unindexed)


async def _count(search: Search, found: Page) -> int | None:
    if not (found.has_newer or found.has_older):
        return len(found.rows)
    try:
        async with asyncio.timeout(LONGEST_COUNT_SECONDS):
            return await count_up_to(running_pool(), search)
    except TimeoutError:
        return None


def _in_words(found: Listed) -> str:
    if found.count is None:
        return _("more than %(number)s emails", number=len(found.page.rows))
    if found.count > COUNTED_AT_MOST:
        return _("%(number)s+ emails", number=number(COUNTED_AT_MOST))
    return ngettext("%(num)s email", "%(num)s emails", found.count)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotSavedError(_("remove: there is no such saved search")) from None


def _address(q: str, **place: Cursor) -> str:
    cursors = {name: cursor.encode() for name, cursor in place.items()}
    return f"{address(EMAILS_PATH)}?{urlencode({'q': q, **cursors})}"


def address_of_search(text: str) -> str:
    """Where a browser finds the emails that a search finds."""
    return f"{address(EMAILS_PATH)}?{urlencode({'q': text})}"
