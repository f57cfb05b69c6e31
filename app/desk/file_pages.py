"""Files of emails at `/files` that are not kept: which, why, found by a search, and to be fetched
again."""

from typing import Any

import attrs
from litestar import Request, get
from litestar.response import Redirect, Template

from app.api.search import Cursor, Search
from app.api.search_text import QUALIFIERS
from app.attachments.counts import count_files
from app.attachments.names import safe_name
from app.attachments.not_kept import find_page
from app.attachments.reasons import sentence_of
from app.attachments.upkeep import File
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import EMAILS_PATH, address
from app.desk.addresses import FILES_PATH as PATH
from app.desk.bulk_pages import NAMES
from app.desk.lists import (
    COUNTED_AT_MOST,
    LISTED,
    Cell,
    Row,
    capitalized,
    listing,
    read_place,
)
from app.desk.narrowed_search import find_narrowed, list_narrowed, state_chips
from app.desk.pages import PageController, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.models.bulk_action import Action
from app.models.email_attachment import NOT_KEPT, EmailAttachment
from app.models.operator_account import Role
from app.settings import get_settings


class FilePages(PageController):
    """The list."""

    path = PATH

    @get()
    async def list_all(
        self, request: Request[Any, Any, Any], q: str = "", after: str | None = None
    ) -> Template | Redirect:
        """Those that ended in a state, the last ones first."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        place = read_place(after)
        try:
            counts = await count_files(running_pool(), NOT_KEPT, at_most=COUNTED_AT_MOST)
            listed = await list_narrowed(
                q,
                user,
                lambda search: _find(search, place),
                qualifier="file",
                field="file_state",
                shown=NOT_KEPT,
            )
        except CANNOT_ASK as error:
            raise database_is_away() from error
        are_fetched = get_settings().attachments != "off"
        return page(
            request,
            "files.html",
            user,
            table=EmailAttachment,
            are_fetched=are_fetched,
            listing=listing(
                PATH,
                listed.found,
                columns=(_("Ended"), _("File"), _("Why"), _("Tries")),
                row=_row,
                place=lambda one: (one.ended_at, one.id),
                after=place,
                is_checked=are_fetched and user.may(Role.OPERATOR),
                q=listed.text,
            ),
            chips=state_chips(
                PATH,
                "file",
                listed.text,
                ((capitalized(_(one)), one, counts[one].files) for one in NOT_KEPT),
            ),
            names={Action.FETCH: _(NAMES[Action.FETCH])},
            q=listed.text,
            wrong=listed.wrong,
            qualifiers=QUALIFIERS,
            here=address(PATH),
        )


async def _find(search: Search, place: Cursor | None) -> list[File]:
    of_emails = attrs.evolve(search, file_state=None, file_words=())

    async def find(condition: str, parameters: list[object]) -> list[File]:
        return await find_page(
            running_pool(),
            search.of_file(parameters),
            # A file whose email has gone is in the list, too, where nothing is asked of emails.
            None if of_emails == Search() else condition,
            parameters,
            limit=LISTED + 1,
            after=(place.received_at, place.id) if place else None,
        )

    return await find_narrowed(of_emails, find)


def _row(one: File) -> Row:
    name = safe_name(one.filename, one.position)
    reason = one.reason or ""
    return Row(
        one.email,
        name,
        [
            Cell(at=one.ended_at),
            Cell(text=name, href=f"{address(EMAILS_PATH)}/{one.email}"),
            Cell(text=sentence_of(reason) or reason, note=one.detail and as_told(one.detail)),
            Cell(text=one.tries),
        ],
    )
