"""Suspended mail at `/suspended`: what Zendesk holds back, with the days until it deletes it, found
by a search, to be recovered or archived. The session of Piccolo Admin opens it."""

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs
import structlog
from litestar import Request, get, post
from litestar.response import Redirect, Template

from app.api.search_text import SearchTextError
from app.audit.actors import Actor
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import SUSPENDED_PATH as PATH
from app.desk.lists import (
    LARGEST_FORM_OF_IDS,
    LISTED,
    LONGEST_SECONDS,
    SHOWN_FIRST,
    Asked,
    Cell,
    Preview,
    Row,
    done_of,
    listing,
    page_address,
    read_place,
)
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, actor_of, page, to_sign_in
from app.desk.previews import preview_page
from app.desk.sign_in import database_is_away, signed_in
from app.desk.suspended_text import SUSPENDED_QUALIFIERS, read_suspended_search
from app.i18n.formats import decimal
from app.i18n.stored_texts import as_told
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.operator_account import Role
from app.models.suspended_ticket import SuspendedTicket
from app.settings import get_settings
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskError
from app.zendesk.suspended import rows
from app.zendesk.suspended.api import RECOVERED_AT_ONCE
from app.zendesk.suspended.keeping import archive_all, recover_all
from app.zendesk.suspended.rows import Wanted

log = structlog.get_logger(__name__)

LARGEST_ID = 2**63 - 1
# The workers tell of them, too, some days before Zendesk deletes them.
SOON_DAYS = 3.0
FIND_ROUND = "SELECT last_ok_at, last_error FROM chores WHERE name = 'suspended'"
COLUMNS = (
    *(N_("Suspended"), N_("Days left"), N_("Why")),
    *(N_("Sender"), N_("Subject"), N_("State")),
)
CHIPS = ((N_("All"), ""), (N_("Not archived"), "archived:no"), (N_("Archived"), "archived:yes"))


class Do(StrEnum):
    """What can be done to many."""

    RECOVER = "recover"
    ARCHIVE = "archive"


NAMES = {Do.RECOVER: N_("Recover"), Do.ARCHIVE: N_("Archive")}
WOULD = {
    Do.RECOVER: N_("would become tickets at Zendesk, whose emails come as any others do"),
    Do.ARCHIVE: N_("would be kept in the quarantine, where Zendesk's 14 days do not count"),
}
ASKED_LATELY = N_("were asked for within the hour")
ARCHIVED = N_("are archived")
ERASED = N_("were erased")
# What is told afterwards, in the address of the list.
DONE = {
    "recovered": N_("Zendesk makes tickets of"),
    "not_recovered": N_("Zendesk could not recover"),
    "archived": N_("Kept in the quarantine"),
    "without_room": N_("Not kept, since the quarantine is full"),
    "gone": N_("Zendesk has no longer"),
    "left": N_("Not reached in time: do it again"),
}


class SuspendedPages(PageController):
    """The list, and what is done to many of it."""

    path = PATH

    @get()
    async def list_all(
        self, request: Request[Any, Any, Any], q: str = "", after: str | None = None
    ) -> Template | Redirect:
        """As the workers saw it last, that which Zendesk deletes first at the head."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return await _page(request, user, q=q, after=after)

    @get("/new")
    async def preview(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """What would be done to many; nothing is."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return await _preview(request, user, Asked.read(request.query_params, Do, _number))

    @post(status_code=200, request_max_body_size=LARGEST_FORM_OF_IDS)
    async def act(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Do what a preview showed."""
        user = await acting_operator(request)
        asked = Asked.read(await request.form(), Do, _number)
        actor, by = actor_of(request, user), f"user:{user.id}"
        counts: dict[str, int] = {}
        try:
            wanted = _wanted_of(asked)
            if asked.action is Do.RECOVER:
                await _recover(wanted, counts, by=by, actor=actor)
            else:
                await _archive(wanted, counts, actor=actor)
        except SearchTextError:
            return await _preview(request, user, asked)
        except ZendeskError as error:
            wrong = _("Not all was done: %(why)s.", why=as_told(str(error)))
            return await _page(request, user, q=asked.text or "", wrong=wrong)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        log.info("suspended_worked_off", action=asked.action.value, by=by, **counts)
        told = {name: many for name, many in counts.items() if many}
        return Redirect(page_address(PATH, q=asked.text or None, **told), status_code=303)


async def _recover(wanted: Wanted, counts: dict[str, int], *, by: str, actor: Actor) -> None:
    pool = running_pool()
    ids = await rows.find_recoverable(pool, wanted)
    deadline = time.monotonic() + LONGEST_SECONDS
    counts.update(recovered=0, not_recovered=0, left=len(ids))
    client = ZendeskClient(get_settings())
    try:
        for begin in range(0, len(ids), RECOVERED_AT_ONCE):
            if time.monotonic() > deadline:
                break
            some = ids[begin : begin + RECOVERED_AT_ONCE]
            taken, failed = await recover_all(client, pool, some, by=by, actor=actor)
            counts["recovered"] += taken
            counts["not_recovered"] += len(failed)
            counts["left"] -= len(some)
    finally:
        await client.close()


async def _archive(wanted: Wanted, counts: dict[str, int], *, actor: Actor) -> None:
    settings, pool = get_settings(), running_pool()
    ids = await rows.find_unarchived(pool, wanted)
    client = ZendeskClient(settings)
    try:
        done = await archive_all(settings, pool, client, ids, actor=actor, seconds=LONGEST_SECONDS)
    finally:
        await client.close()
    counts.update(
        archived=done.kept, without_room=done.without_room, gone=done.gone, left=done.left
    )


async def _page(
    request: Request[Any, Any, Any],
    user: Operator,
    *,
    q: str,
    after: str | None = None,
    wrong: str | None = None,
) -> Template:
    pool, place = running_pool(), read_place(after)
    found: list[rows.Row] = []
    try:
        seen = await pool.fetchrow(FIND_ROUND)
        found = await rows.find_page(
            pool,
            read_suspended_search(q),
            limit=LISTED + 1,
            after=(place.received_at, min(place.id.int, LARGEST_ID)) if place else None,
        )
    except SearchTextError as error:
        wrong = str(error)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    now = datetime.now(UTC)
    is_asked = bool(get_settings().zendesk_token)
    return page(
        request,
        "suspended.html",
        user,
        table=SuspendedTicket,
        is_zendesk_asked=is_asked,
        seen_at=seen["last_ok_at"] if seen else None,
        error=seen["last_error"] if seen else None,
        listing=listing(
            PATH,
            found,
            columns=[_(name) for name in COLUMNS],
            row=lambda one: _row(one, now),
            place=lambda one: (one.suspended_at, UUID(int=one.id)),
            after=place,
            is_checked=is_asked and user.may(Role.OPERATOR),
            q=q or None,
        ),
        q=q,
        qualifiers=SUSPENDED_QUALIFIERS,
        chips=[(_(name), page_address(PATH, q=text or None), q == text) for name, text in CHIPS],
        names={one: _(name) for one, name in NAMES.items()},
        done=done_of(request.query_params, DONE),
        wrong=wrong,
    )


async def _preview(
    request: Request[Any, Any, Any], user: Operator, asked: Asked[Do, int]
) -> Template:
    now = datetime.now(UTC)
    until = asked.until or now

    async def look() -> tuple[Preview, list[Row]]:
        wanted = attrs.evolve(_wanted_of(asked), until=until)
        counts = await rows.count_wanted(running_pool(), wanted)
        first = await rows.find_page(running_pool(), wanted, limit=SHOWN_FIRST)
        return _what_would_happen(asked.action, counts), [_row(one, now) for one in first]

    return await preview_page(
        request,
        "suspended_new.html",
        user,
        asked,
        look,
        path=PATH,
        columns=COLUMNS,
        name=NAMES[asked.action],
        would=WOULD[asked.action],
        until=until.isoformat(),
    )


def _what_would_happen(action: Do, counts: rows.Counts) -> Preview:
    if action is Do.RECOVER:
        cannot = {ASKED_LATELY: counts.asked_lately}
    else:
        cannot = {ARCHIVED: counts.archived, ERASED: counts.erased}
    return Preview(counts.all, {_(why): many for why, many in cannot.items() if many})


def _wanted_of(asked: Asked[Do, int]) -> Wanted:
    if asked.text is None:
        return Wanted(ids=asked.ids)
    return attrs.evolve(read_suspended_search(asked.text), until=asked.until)


def _row(mail: rows.Row, now: datetime) -> Row:
    why = f"{mail.cause}: {mail.cause_text}" if mail.cause_text else mail.cause
    is_asked = mail.recover_asked_at is not None
    state = _("archived") if mail.archived_at else _("recovery asked for") if is_asked else ""
    left = mail.days_left(now)
    return Row(
        mail.id,
        mail.subject or _("(no subject)"),
        [
            Cell(at=mail.suspended_at),
            Cell(text=decimal(left, 1), is_bad=left < SOON_DAYS and not mail.archived_at),
            Cell(text=why),
            Cell(text=mail.sender, note=mail.sender_name),
            Cell(text=mail.subject or _("(no subject)")),
            Cell(text=state),
        ],
    )


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= LARGEST_ID:
        raise ValueError(_("%(text)s is no id of Zendesk's", text=text[:30]))
    return number
