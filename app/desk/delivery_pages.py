"""Deliveries at `/deliveries`: how the receiver stands, what was given up and what waits, found by
a search, to be delivered again."""

from typing import Any

from litestar import Controller, Request, get
from litestar.response import Redirect, Template

from app.api.search_text import QUALIFIERS, SearchTextError
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
    counted,
    listing,
    page_address,
    read_place,
)
from app.desk.narrowed_search import find_narrowed, read_narrowed
from app.desk.pages import NO_STORE, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.http.known_hosts import only_known_hosts
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.models.bulk_action import Action
from app.models.delivery import SyncReceiver
from app.models.incoming_email import SyncStatus
from app.models.operator_account import Role
from app.settings import get_settings
from app.sync.counts import Undelivered, count_deliveries, list_undelivered, receiver_of

SHOWN = (SyncStatus.FAILED, SyncStatus.PENDING)


class DeliveryPages(Controller):
    """The list."""

    path = PATH
    include_in_schema = False
    guards = [only_known_hosts]  # noqa: RUF012 - Litestar declares it so
    response_headers = NO_STORE

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
        found: list[Undelivered] = []
        wrong: str | None = None
        try:
            counts = await count_deliveries(
                running_pool(), receiver_of(settings), at_most=COUNTED_AT_MOST
            )
            narrowed = read_narrowed(q, user, qualifier="sync", field="sync_status", shown=SHOWN)
            q = narrowed.text
            found = await find_narrowed(
                narrowed.search,
                lambda condition, parameters: list_undelivered(
                    running_pool(),
                    condition,
                    parameters,
                    limit=LISTED + 1,
                    after=(place.received_at, place.id) if place else None,
                ),
            )
        except SearchTextError as error:
            wrong = str(error)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return page(
            request,
            "deliveries.html",
            user,
            table=SyncReceiver,
            receiver=receiver_of(settings),
            stands=counts.receiver,
            listing=listing(
                PATH,
                found,
                columns=(_("Ended"), _("Ticket"), _("Subject"), _("Tries"), _("Next")),
                row=_row,
                place=lambda one: (one.completed_at, one.id),
                after=place,
                is_checked=settings.delivers and user.may(Role.OPERATOR),
                q=q,
            ),
            chips=[
                (
                    f"{name} ({counted(many)})",
                    page_address(PATH, q=f"sync:{one}"),
                    q == f"sync:{one}",
                )
                for name, one, many in (
                    (_("Given up"), SyncStatus.FAILED, counts.failed),
                    (_("Waiting"), SyncStatus.PENDING, counts.pending),
                )
            ],
            names={Action.DELIVER: _(NAMES[Action.DELIVER])},
            q=q,
            wrong=wrong,
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
