"""Deliveries at `/deliveries`: how the receiver stands, what was given up and what waits, found by
a search, to be delivered again."""

from typing import Any

from litestar import Request, get
from litestar.response import Redirect, Template

from app.api.search import Search
from app.api.search_text import QUALIFIERS
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import DELIVERIES_PATH as PATH
from app.desk.addresses import EMAILS_PATH, address
from app.desk.bulk_pages import NAMES
from app.desk.lists import (
    COUNTED_AT_MOST,
    LISTED,
    Cell,
    Row,
    listing,
    read_place,
)
from app.desk.narrowed_search import find_narrowed, list_narrowed, state_chips
from app.desk.pages import PageController, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.models.bulk_action import Action
from app.models.delivery import SyncReceiver
from app.models.incoming_email import SyncStatus
from app.models.operator_account import Role
from app.settings import get_settings
from app.sync.counts import Undelivered, count_deliveries, list_undelivered, receiver_of

SHOWN = (SyncStatus.FAILED, SyncStatus.PENDING)


class DeliveryPages(PageController):
    """The list."""

    path = PATH

    @get()
    async def list_all(
        self, request: Request[Any, Any, Any], q: str = "", after: str | None = None
    ) -> Template | Redirect:
        """What was given up, or what waits; those that ended last first."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        place = read_place(after)
        settings = get_settings()

        async def find(search: Search) -> list[Undelivered]:
            return await find_narrowed(
                search,
                lambda condition, parameters: list_undelivered(
                    running_pool(),
                    condition,
                    parameters,
                    limit=LISTED + 1,
                    after=(place.received_at, place.id) if place else None,
                ),
            )

        try:
            counts = await count_deliveries(
                running_pool(), receiver_of(settings), at_most=COUNTED_AT_MOST
            )
            listed = await list_narrowed(
                q, user, find, qualifier="sync", field="sync_status", shown=SHOWN
            )
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return page(
            request,
            "deliveries.html",
            user,
            table=SyncReceiver,
            receiver=receiver_of(settings),
            stands=counts.receiver,
            refusal=counts.refusal,
            listing=listing(
                PATH,
                listed.found,
                columns=(_("Ended"), _("Ticket"), _("Subject"), _("Tries"), _("Next")),
                row=_row,
                place=lambda one: (one.completed_at, one.id),
                after=place,
                is_checked=settings.delivers and user.may(Role.OPERATOR),
                q=listed.text,
            ),
            chips=state_chips(
                PATH,
                "sync",
                listed.text,
                (
                    (_("Given up"), SyncStatus.FAILED, counts.failed),
                    (_("Waiting"), SyncStatus.PENDING, counts.pending),
                ),
            ),
            names={Action.DELIVER: _(NAMES[Action.DELIVER])},
            q=listed.text,
            wrong=listed.wrong,
            qualifiers=QUALIFIERS,
            here=address(PATH),
        )


def _row(one: Undelivered) -> Row:
    subject = one.subject or _("(no subject)")
    later = _("now") if one.is_under_way else ""
    return Row(
        one.id,
        subject,
        [
            Cell(at=one.completed_at),
            Cell(text=one.ticket_id),
            Cell(
                text=subject,
                href=f"{address(EMAILS_PATH)}/{one.id}",
                note=one.error and as_told(one.error),
            ),
            Cell(text=one.tries),
            Cell(at=None if one.is_under_way else one.next_attempt_at, text=later),
        ],
    )
