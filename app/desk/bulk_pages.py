"""Bulk actions at `/bulk`: the preview of one, the list of all, and how far each is."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import structlog
from litestar import Request, get, post
from litestar.exceptions import NotFoundException, ValidationException
from litestar.response import Redirect, Template

from app.api.bulk_selection import select
from app.api.search_text import HANDLER_RESULT, SearchTextError, read_search
from app.bulk import asking, rows
from app.bulk.acting import DONE, REFUSED, SAID, WOULD, NotPossibleError
from app.bulk.asking import AskingError, Preview
from app.bulk.rows import Bulk
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import BULK_PATH as PATH
from app.desk.addresses import EMAILS_PATH, address
from app.desk.lists import LISTED, Asked, Cell, Listing, Row, listing, page_address, read_place
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, actor_of, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.formats import number
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.bulk_action import Action, BulkAction, BulkState
from app.settings import get_settings

log = structlog.get_logger(__name__)

LEFT_OUT = 100
NAMES: Mapping[Action, str] = {
    Action.RETRY: N_("Retry"),
    Action.DELIVER: N_("Deliver again"),
    Action.FETCH: N_("Fetch files again"),
    Action.SETTLE: N_("Complete by hand"),
    Action.DISCARD: N_("Discard"),
    Action.ERASE: N_("Erase"),
}


class BulkPages(PageController):
    """The preview, the list, and a page of each."""

    path = PATH

    @get()
    async def list_all(
        self, request: Request[Any, Any, Any], after: str | None = None
    ) -> Template | Redirect:
        """Those asked for last first."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        place = read_place(after)
        try:
            found = await rows.list_newest(
                running_pool(),
                limit=LISTED + 1,
                after=(place.received_at, place.id) if place else None,
            )
        except CANNOT_ASK as error:
            raise database_is_away() from error
        listed = listing(
            PATH,
            found,
            columns=(_("Asked for"), _("What"), _("Which"), _("State"), _("Done")),
            row=lambda one: _row(one, user),
            place=lambda one: (one.asked_at, one.id),
            after=place,
        )
        return page(request, "bulk_list.html", user, table=BulkAction, listing=listed)

    @get("/new")
    async def preview(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """What would happen; nothing does."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return await _preview(request, user, Asked.read(request.query_params, Action, UUID))

    @post(status_code=200)
    async def start(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Begin what a preview showed."""
        user = await acting_operator(request)
        form = await request.form()
        asked = Asked.read(form, Action, UUID)
        confirm = str(form.get("confirm", "")).replace(",", "").strip()
        try:
            bulk = await asking.start(
                running_pool(),
                UUID(str(form.get("key", ""))),
                asked.action,
                select(asked.text, asked.ids, until=asked.until),
                get_settings(),
                by=user.username,
                actor=actor_of(request, user),
                reason=str(form.get("reason", "")),
                confirmed=int(confirm) if confirm.isdecimal() else None,
            )
        except (AskingError, NotPossibleError) as wrong:
            return await _preview(request, user, asked, wrong=str(wrong))
        except ValueError as wrong:
            raise ValidationException(
                _("the form is not one of ours: %(wrong)s", wrong=wrong)
            ) from wrong
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return Redirect(f"{address(PATH)}/{bulk.id}", status_code=303)

    @get("/{action_id:uuid}")
    async def show(self, request: Request[Any, Any, Any], action_id: UUID) -> Template | Redirect:
        """How far it is."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return await _page(request, user, action_id)

    @post("/{action_id:uuid}", status_code=200)
    async def change(self, request: Request[Any, Any, Any], action_id: UUID) -> Template | Redirect:
        """Stop it, or let it go on."""
        user = await acting_operator(request)
        form, actor, pool = await request.form(), actor_of(request, user), running_pool()
        try:
            if form.get("do") == "resume":
                is_done = await rows.resume(pool, action_id, actor=actor)
            else:
                is_done = await rows.stop(pool, action_id, by=user.username, actor=actor)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        if not is_done:
            wrong = _("Nothing was done: it is in another state by now.")
            return await _page(request, user, action_id, wrong=wrong)
        log.info("bulk_action_changed", id=str(action_id), do=form.get("do"), by=f"user:{user.id}")
        return Redirect(f"{address(PATH)}/{action_id}", status_code=303)


async def _preview(
    request: Request[Any, Any, Any],
    user: Operator,
    asked: Asked[Action, UUID],
    *,
    wrong: str | None = None,
) -> Template:
    found: Preview | None = None
    until = asked.until or datetime.now(UTC)
    try:
        if asked.text is not None or asked.ids:
            user.see_that_it_may_search(read_search(asked.text or ""))
            selection = select(asked.text, asked.ids, until=until)
            found = await asking.preview(running_pool(), asked.action, selection, get_settings())
        else:
            wrong = _("No row is checked: go back, and check some.")
    except (AskingError, NotPossibleError, SearchTextError) as error:
        wrong = wrong or str(error)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    return page(
        request,
        "bulk_new.html",
        user,
        asked=asked,
        name=_(NAMES[asked.action]),
        would=_(WOULD[asked.action]),
        found=found,
        listing=_first(found) if found else None,
        why={kind: _(text) for kind, text in SAID.items()},
        until=until.isoformat(),
        key=uuid4(),
        post_to=address(PATH),
        back=page_address(EMAILS_PATH, q=asked.text),
        wrong=wrong,
    )


def _first(found: Preview) -> Listing:
    return Listing(
        columns=(_("Received"), _("From"), _("Subject"), _("State")),
        rows=[
            Row(
                row["id"],
                row["subject"],
                [
                    Cell(at=row["received_at"]),
                    Cell(text=row["from_name"] or row["from_email"]),
                    Cell(
                        text=row["subject"] or _("(no subject)"),
                        href=f"{address(EMAILS_PATH)}/{row['id']}",
                    ),
                    Cell(
                        text=_(row["processing_status"]),
                        note=_("left alone") if row["why"] else None,
                    ),
                ],
            )
            for row in found.first
        ],
    )


async def _page(
    request: Request[Any, Any, Any], user: Operator, action_id: UUID, *, wrong: str | None = None
) -> Template:
    try:
        bulk = await rows.read(running_pool(), action_id)
        left = await rows.find_left_out(running_pool(), action_id, limit=LEFT_OUT + 1)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    if bulk is None:
        raise NotFoundException(_("there is no bulk action %(id)s", id=action_id))
    left_out = Listing(
        columns=(_("Email"), _("Why")),
        rows=[
            Row(
                one.email,
                one.subject or "",
                [
                    Cell(text=_("(gone)"))
                    if one.subject is None
                    else Cell(
                        text=one.subject or _("(no subject)"),
                        href=f"{address(EMAILS_PATH)}/{one.email}",
                    ),
                    Cell(
                        text=_(SAID.get(one.why, one.why)).removeprefix(_("are ")),
                        is_bad=one.why == REFUSED,
                    ),
                ],
            )
            for one in left[:LEFT_OUT]
        ],
    )
    return page(
        request,
        "bulk.html",
        user,
        table=BulkAction,
        table_key=action_id,
        one=bulk,
        name=_(NAMES[bulk.action]),
        which=_which(bulk, user),
        search=page_address(EMAILS_PATH, q=bulk.filter)
        if bulk.filter is not None and _is_shown(bulk.filter, user)
        else None,
        done=_(DONE[bulk.action]),
        why={kind: _(text) for kind, text in SAID.items()},
        listing=left_out,
        has_more=len(left) > LEFT_OUT,
        is_running=bulk.state is BulkState.RUNNING,
        can_resume=bulk.state is BulkState.STOPPED,
        wrong=wrong,
    )


def _row(bulk: Bulk, user: Operator) -> Row:
    name = _(NAMES[bulk.action])
    left = bulk.skipped + bulk.failed
    return Row(
        bulk.id,
        name,
        [
            Cell(at=bulk.asked_at, note=_("by %(who)s", who=bulk.asked_by)),
            Cell(text=name, href=f"{address(PATH)}/{bulk.id}"),
            Cell(text=_which(bulk, user)),
            Cell(text=_(bulk.state), is_bad=bulk.failed > 0),
            Cell(
                text=_(
                    "%(done)s of %(total)s",
                    done=number(bulk.looked_at),
                    total=number(bulk.total),
                ),
                note=_("%(number)s left out", number=number(left)) if left else None,
            ),
        ],
    )


def _is_shown(search: str, user: Operator) -> bool:
    """Whether it tells no more than this user sees."""
    return user.sees_bodies or HANDLER_RESULT not in search


def _which(bulk: Bulk, user: Operator) -> str:
    if bulk.filter is None:
        return _("%(number)s that were checked or named", number=number(bulk.total))
    if not _is_shown(bulk.filter, user):
        return _("(not shown)")
    return bulk.filter or _("all emails")
