"""What would be done to many rows of a list, before anything is: the page that a form leads to
whose action is no bulk action on emails."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from litestar import Request
from litestar.response import Template

from app.api.search_text import SearchTextError
from app.database.errors import CANNOT_ASK
from app.desk.addresses import address
from app.desk.lists import Asked, Listing, Preview, Row, page_address
from app.desk.operators import Operator
from app.desk.pages import page
from app.desk.sign_in import database_is_away
from app.i18n.texts import gettext as _

Act = TypeVar("Act")
Id = TypeVar("Id")


async def preview_page(
    request: Request[Any, Any, Any],
    template: str,
    user: Operator,
    asked: Asked[Act, Id],
    look: Callable[[], Awaitable[tuple[Preview, Sequence[Row]]]],
    *,
    path: str,
    columns: Sequence[str],
    name: str,
    would: str,
    **context: Any,
) -> Template:
    """The page.

    Args:
        look: finds what would be done, and the first rows of which.
        path: of the list, which takes the form, too.
        columns, name, would: messages: of the rows, of the action, and what it would do.
    """
    found: Preview | None = None
    first: Sequence[Row] = []
    wrong = None
    try:
        if asked.text is None and not asked.ids:
            wrong = _("No row is checked: go back, and check some.")
        else:
            found, first = await look()
    except SearchTextError as error:
        wrong = str(error)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    return page(
        request,
        template,
        user,
        asked=asked,
        name=_(name),
        would=_(would),
        found=found,
        listing=Listing(columns=[_(column) for column in columns], rows=first),
        why={},
        post_to=address(path),
        back=page_address(path, q=asked.text or None),
        wrong=wrong,
        **context,
    )
