"""The quarantine at `/quarantine`: what waits there, found by a search, tried again or discarded by
the check box or all at once."""

import time
from collections import Counter
from collections.abc import Mapping
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
from app.audit.acts import Act
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import QUARANTINE_PATH as PATH
from app.desk.addresses import address
from app.desk.lists import (
    LARGEST_FORM_OF_IDS,
    LISTED,
    LONGEST_SECONDS,
    SHOWN_FIRST,
    Asked,
    Cell,
    Preview,
    Row,
    capitalized,
    done_of,
    listing,
    page_address,
    read_place,
)
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, actor_of, page, to_sign_in
from app.desk.previews import preview_page
from app.desk.quarantine_text import QUARANTINE_QUALIFIERS, read_quarantine_search
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.formats import moment, number
from app.i18n.stored_texts import as_told
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.intake.intake import Intake
from app.intake.refusals import (
    EVERYTHING,
    Count,
    Summary,
    Wanted,
    count_wanted,
    discard,
    find_ids,
    refusals,
    summaries_signed_first,
)
from app.intake.retrying import try_again
from app.models.operator_account import Role
from app.models.quarantined_webhook import QuarantinedWebhook, RefusalReason

log = structlog.get_logger(__name__)

LONGEST_DETAIL = 100
DISCARDED_AT_ONCE = 1_000
COLUMNS = (N_("Received"), N_("Why"), N_("Signed"), N_("Bytes"))


class Do(StrEnum):
    """What can be done to many."""

    RETRY = "retry"
    DISCARD = "discard"


NAMES = {Do.RETRY: N_("Try again"), Do.DISCARD: N_("Discard")}
WOULD = {
    Do.RETRY: N_("would be verified anew by today's settings, and be admitted where they pass"),
    Do.DISCARD: N_("would be discarded for good, with the bytes that came"),
}
WITHOUT_BODY = N_("were too large to be kept")
SUSPENDED = N_("are suspended mail, which nobody refused: each is admitted on its page")
DONE = {
    "accepted": N_("Admitted"),
    "duplicate": N_("Admitted before"),
    "refused": N_("Refused again"),
    "suspended": N_("Passed over, since they are suspended mail"),
    "not_stored": N_("Not stored, to be tried again"),
    "discarded": N_("Discarded"),
    "left": N_("Not reached in time: do it again"),
}


class QuarantineList(PageController):
    """The list, and what is done to many of it."""

    path = PATH

    @get()
    async def list_all(
        self,
        request: Request[Any, Any, Any],
        q: str = "",
        after: str | None = None,
        signed: bool = False,
    ) -> Template | Redirect:
        """Those that Zendesk signed first, then the oldest; after one of them, page by page."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        place = read_place(after)
        found: list[Summary] = []
        wrong: str | None = None
        try:
            found = await summaries_signed_first(
                running_pool(),
                read_quarantine_search(q),
                limit=LISTED + 1,
                after=(signed, place.received_at, place.id) if place else None,
            )
        except SearchTextError as error:
            wrong = str(error)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        listed = listing(
            PATH,
            found,
            columns=[_(name) for name in COLUMNS],
            row=_row,
            place=lambda one: (one.received_at, one.id),
            after=place,
            is_checked=user.may(Role.OPERATOR),
            q=q or None,
            signed=int(found[LISTED - 1].is_signed) if len(found) > LISTED else None,
        )
        return page(
            request,
            "quarantine.html",
            user,
            table=QuarantinedWebhook,
            listing=attrs.evolve(listed, first=page_address(PATH, q=q or None) if place else None),
            q=q,
            wrong=wrong,
            qualifiers=QUARANTINE_QUALIFIERS,
            chips=[
                (name, page_address(PATH, q=text or None), q == text)
                for name, text in (
                    (_("All"), ""),
                    *(
                        (capitalized(_(one).replace("_", " ")), f"reason:{one}")
                        for one in RefusalReason
                    ),
                )
            ],
            names={one: _(name) for one, name in NAMES.items()},
            done=_done(request),
        )

    @get("/new")
    async def preview(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """What would be done to many; nothing is."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return await _preview(request, user, Asked.read(request.query_params, Do, UUID))

    @post(status_code=200, request_max_body_size=LARGEST_FORM_OF_IDS)
    async def act(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Do what a preview showed."""
        user = await acting_operator(request)
        asked = Asked.read(await request.form(), Do, UUID)
        actor, by = actor_of(request, user), f"user:{user.id}"
        try:
            wanted = _wanted_of(asked)
            if asked.action is Do.RETRY:
                counts = await _retry(request.app.state.intake, wanted, actor)
            else:
                counts = await _discard(wanted, actor)
        except SearchTextError:
            return await _preview(request, user, asked)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        log.info("quarantine_worked_off", action=asked.action.value, by=by, **counts)
        told = {name: many for name, many in counts.items() if many}
        return Redirect(page_address(PATH, q=asked.text or None, **told), status_code=303)


async def _retry(intake: Intake, wanted: Wanted, actor: Actor) -> dict[str, int]:
    pool, counts = running_pool(), Counter[str]()
    total = sum(one.webhooks for one in (await count_wanted(pool, wanted)).values())
    deadline = time.monotonic() + LONGEST_SECONDS
    async for some in refusals(pool, wanted):
        results = await try_again(intake, some)
        if passed := [refusal_id for refusal_id, result in results.items() if result.leaves]:
            await discard(pool, passed, actor=actor, act=Act.QUARANTINE_ADMIT)
        counts.update(result.name.lower() for result in results.values())
        if time.monotonic() > deadline:
            break
    return {**counts, "left": max(total - counts.total(), 0)}


async def _discard(wanted: Wanted, actor: Actor) -> dict[str, int]:
    pool, discarded = running_pool(), 0
    while ids := await find_ids(pool, wanted, limit=DISCARDED_AT_ONCE):
        await discard(pool, ids, actor=actor)
        discarded += len(ids)
    return {"discarded": discarded}


async def _preview(
    request: Request[Any, Any, Any], user: Operator, asked: Asked[Do, UUID]
) -> Template:
    until = asked.until or datetime.now(UTC)

    async def look() -> tuple[Preview, list[Row]]:
        wanted = attrs.evolve(_wanted_of(asked), until=until)
        counts = await count_wanted(running_pool(), wanted)
        first = await summaries_signed_first(running_pool(), wanted, limit=SHOWN_FIRST)
        return _what_would_happen(asked.action, counts), [_row(one) for one in first]

    return await preview_page(
        request,
        "quarantine_new.html",
        user,
        asked,
        look,
        path=PATH,
        columns=COLUMNS,
        name=NAMES[asked.action],
        would=WOULD[asked.action],
        removes=asked.action is Do.DISCARD,
        until=until.isoformat(),
    )


def _what_would_happen(action: Do, counts: Mapping[RefusalReason, Count]) -> Preview:
    total = sum(one.webhooks for one in counts.values())
    cannot: dict[str, int] = {}
    if action is Do.RETRY:
        suspended = counts.get(RefusalReason.SUSPENDED, Count(0, 0))
        without_body = sum(one.without_body for one in counts.values()) - suspended.without_body
        cannot = {SUSPENDED: suspended.webhooks, WITHOUT_BODY: without_body}
    return Preview(total, {_(why): many for why, many in cannot.items() if many})


def _wanted_of(asked: Asked[Do, UUID]) -> Wanted:
    wanted = EVERYTHING if asked.text is None else read_quarantine_search(asked.text)
    return attrs.evolve(wanted, ids=asked.ids if asked.text is None else None, until=asked.until)


def _row(refusal: Summary) -> Row:
    is_suspended = refusal.reason is RefusalReason.SUSPENDED
    unsigned = _("from its API") if is_suspended else _("no")
    detail = as_told(refusal.detail)
    detail = detail if len(detail) <= LONGEST_DETAIL else f"{detail[: LONGEST_DETAIL - 1]}…"
    return Row(
        refusal.id,
        _("what came at %(at)s", at=moment(refusal.received_at, seconds=True)),
        [
            Cell(at=refusal.received_at, href=f"{address(PATH)}/{refusal.id}"),
            Cell(text=_(refusal.reason), note=detail),
            Cell(text=_("by Zendesk") if refusal.is_signed else unsigned),
            Cell(text=number(refusal.size)),
        ],
    )


def _done(request: Request[Any, Any, Any]) -> str | None:
    """What the operator did on the page before."""
    try:
        email_id = UUID(request.query_params.get("admitted", ""))
        return _("It is email %(id)s now.", id=email_id)
    except ValueError:
        return done_of(request.query_params, DONE)
