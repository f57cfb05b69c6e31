"""Files of emails at `/files` that are not kept: which, why, and to be fetched again."""

from typing import Any

from litestar import Controller, Request, get
from litestar.response import Redirect, Template

from app.attachments.counts import count_files
from app.attachments.names import safe_name
from app.attachments.not_kept import find_page
from app.attachments.reasons import sentence_of
from app.attachments.upkeep import NOT_KEPT, File
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
    counted,
    listing,
    page_address,
    read_place,
)
from app.desk.pages import NO_STORE, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.http.known_hosts import only_known_hosts
from app.i18n.texts import gettext as _
from app.models.bulk_action import Action
from app.models.email_attachment import AttachmentState, EmailAttachment
from app.models.operator_account import Role
from app.settings import get_settings

SHOWN = {state.value: state for state in NOT_KEPT}


class FilePages(Controller):
    """The list."""

    path = PATH
    include_in_schema = False
    guards = [only_known_hosts]  # noqa: RUF012 - Litestar declares it so
    response_headers = NO_STORE

    @get()
    async def list_all(
        self, request: Request[Any, Any, Any], only: str = "failed", after: str | None = None
    ) -> Template | Redirect:
        """Those that ended in a state, the last ones first."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        place = read_place(after)
        shown = SHOWN.get(only, AttachmentState.FAILED)
        try:
            counts = await count_files(running_pool(), NOT_KEPT, at_most=COUNTED_AT_MOST)
            found = await find_page(
                running_pool(),
                shown,
                limit=LISTED + 1,
                after=(place.received_at, place.id) if place else None,
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
                found,
                columns=(_("Ended"), _("File"), _("Why"), _("Tries")),
                row=_row,
                place=lambda one: (one.ended_at, one.id),
                after=place,
                is_checked=are_fetched and user.may(Role.OPERATOR),
                only=shown,
            ),
            chips=[
                (
                    f"{_(one).capitalize()} ({counted(counts[one].files)})",
                    page_address(PATH, only=one),
                    one is shown,
                )
                for one in NOT_KEPT
            ],
            names={Action.FETCH: _(NAMES[Action.FETCH])},
            search=f"file:{shown}",
        )


def _row(one: File) -> Row:
    name = safe_name(one.filename, one.position)
    reason = one.reason or ""
    return Row(
        one.email,
        name,
        [
            Cell(at=one.ended_at),
            Cell(text=name, href=f"{address(EMAILS_PATH)}/{one.email}"),
            Cell(text=sentence_of(reason) or reason, note=one.detail),
            Cell(text=one.tries),
        ],
    )
