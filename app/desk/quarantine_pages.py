"""The page at `/quarantine/{id}` where an operator mends a refused webhook.

The session of Piccolo Admin opens it. A change needs a token made of that session, which only our
own page knows.
"""

import asyncio
from typing import Any
from uuid import UUID

import structlog
from litestar import Request, get, post
from litestar.exceptions import NotFoundException
from litestar.response import Redirect, Template

from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import QUARANTINE_PATH as PATH
from app.desk.addresses import address
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, actor_of, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.texts import gettext as _
from app.intake.mending import (
    LARGEST_ON_A_PAGE,
    MendingError,
    admit_mended,
    as_text,
    examine_for_page,
)
from app.intake.refusals import Refusal, discard, find_refusal
from app.intake.refused import RefusedError
from app.intake.row_writer import NotStoredError
from app.models.quarantined_webhook import QuarantinedWebhook
from app.zendesk.lint.stored import lint_refusal

log = structlog.get_logger(__name__)

# Of a larger one `mailroom quarantine show` tells the places: it takes seconds.
LARGEST_LINTED = 64 * 1024
# A form writes a byte as three characters at worst.
LARGEST_FORM = 3 * LARGEST_ON_A_PAGE + 4096


class QuarantinePages(PageController):
    """The page of each."""

    path = PATH

    @get("/{refusal_id:uuid}")
    async def show(self, request: Request[Any, Any, Any], refusal_id: UUID) -> Template | Redirect:
        """Its text, with what is wrong beside it."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        refusal = await _find(refusal_id)
        return await _mending(request, user, refusal, text=as_text(refusal))

    @post("/{refusal_id:uuid}", request_max_body_size=LARGEST_FORM)
    async def change(
        self, request: Request[Any, Any, Any], refusal_id: UUID
    ) -> Template | Redirect:
        """Check the text, admit it, or discard the webhook."""
        user = await acting_operator(request)
        form = await request.form()
        refusal = await _find(refusal_id)
        # Browsers send line breaks as CR LF, whatever they were.
        text = str(form.get("text", "")).replace("\r\n", "\n")
        try:
            match form.get("action"):
                case "discard":
                    await discard(running_pool(), [refusal_id], actor=actor_of(request, user))
                    log.info("discarded", refusal_id=str(refusal_id), by=f"user:{user.id}")
                    return Redirect(f"{address(PATH)}?discarded=1", status_code=303)
                case "admit":
                    return await _admit(request, user, refusal, text, form)
                case _:
                    return await _mending(request, user, refusal, text=text)
        except CANNOT_ASK as error:
            raise database_is_away() from error


async def _admit(
    request: Request[Any, Any, Any], user: Operator, refusal: Refusal, text: str, form: Any
) -> Template | Redirect:
    try:
        admission = await admit_mended(
            request.app.state.intake,
            running_pool(),
            refusal,
            body=_body(refusal, text),
            by=user.username,
            actor=actor_of(request, user),
            accept_unsigned="accept_unsigned" in form,
            without_sender="without_sender" in form,
        )
    except (RefusedError, MendingError, NotStoredError) as error:
        return await _mending(request, user, refusal, text=text, error=str(error))
    log.info(
        "admitted",
        refusal_id=str(refusal.id),
        email_id=str(admission.email_id),
        by=f"user:{user.id}",
    )
    return Redirect(f"{address(PATH)}?admitted={admission.email_id}", status_code=303)


async def _mending(
    request: Request[Any, Any, Any],
    user: Operator,
    refusal: Refusal,
    *,
    text: str,
    error: str | None = None,
) -> Template:
    intake = request.app.state.intake
    body = _body(refusal, text)
    findings = examine_for_page(intake, refusal, body)
    report = None
    if max(refusal.size, len(text)) <= LARGEST_LINTED:
        report = await asyncio.to_thread(
            lint_refusal, refusal, body, orders=intake.orders, is_genuine=findings.is_genuine
        )
    return page(
        request,
        "refusal.html",
        user,
        table=QuarantinedWebhook,
        table_key=refusal.id,
        refusal=refusal,
        text=text if user.sees_bodies else "",
        findings=findings,
        report=report if user.sees_bodies else None,
        error=error,
        sees_bodies=user.sees_bodies,
        is_editable=user.sees_bodies and refusal.size <= LARGEST_ON_A_PAGE,
    )


def _body(refusal: Refusal, text: str) -> bytes | None:
    """None where the operator changed nothing: then the bytes that came are meant."""
    is_unchanged = text == as_text(refusal).replace("\r\n", "\n")
    return None if is_unchanged and refusal.body is not None else text.encode("utf-8", "replace")


async def _find(refusal_id: UUID) -> Refusal:
    try:
        refusal = await find_refusal(running_pool(), refusal_id)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    if refusal is None:
        raise NotFoundException(_("there is no %(id)s in the quarantine", id=refusal_id))
    return refusal
