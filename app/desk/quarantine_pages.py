"""The quarantine at `/quarantine`: what waits there, and the page where an operator mends one.

The session of Piccolo Admin opens it. A change needs a token made of that session, which only our
own page knows.
"""

import hashlib
import hmac
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import structlog
from litestar import Controller, Request, get, post
from litestar.exceptions import (
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    ValidationException,
)
from litestar.response import Redirect, Template
from piccolo.apps.user.tables import BaseUser

from app.api.emails import Cursor, CursorError
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.overview import QUARANTINE_PATH as PATH
from app.desk.overview import address, admin_address, file_url
from app.desk.sign_in import database_is_away, signed_in
from app.http.known_hosts import only_known_hosts
from app.intake.mending import (
    LARGEST_ON_A_PAGE,
    MendingError,
    admit_mended,
    as_text,
    examine_for_page,
)
from app.intake.refusals import Refusal, Summary, discard, find_refusal, summaries_signed_first
from app.intake.refused import RefusedError
from app.intake.row_writer import NotStoredError

log = structlog.get_logger(__name__)

LISTED = 200
# A form writes a byte as three characters at worst.
LARGEST_FORM = 3 * LARGEST_ON_A_PAGE + 4096
SESSION_COOKIE = "id"


class QuarantinePages(Controller):
    """The list, and a page of each."""

    path = PATH
    include_in_schema = False
    guards = [only_known_hosts]  # noqa: RUF012 - Litestar declares it so
    response_headers = {"Cache-Control": "no-store"}  # noqa: RUF012 - Litestar declares it so

    @get()
    async def list_all(
        self, request: Request[Any, Any, Any], after: str | None = None, signed: bool = False
    ) -> Template | Redirect:
        """Those that Zendesk signed first, then the oldest; after one of them, page by page."""
        user = await signed_in(request.scope)
        if user is None:
            return Redirect(admin_address(), status_code=303)
        try:
            place = Cursor.decode(after) if after else None
        except CursorError as wrong:
            raise ValidationException(f"after: {wrong}") from wrong
        try:
            found = await summaries_signed_first(
                running_pool(),
                limit=LISTED + 1,
                after=(signed, place.received_at, place.id) if place else None,
            )
        except CANNOT_ASK as error:
            raise database_is_away() from error
        listed = found[:LISTED]
        return _page(
            "quarantine.html",
            user,
            refusals=listed,
            following=_after(listed[-1]) if len(found) > LISTED else None,
            done=_done(request),
        )

    @get("/{refusal_id:uuid}")
    async def show(self, request: Request[Any, Any, Any], refusal_id: UUID) -> Template | Redirect:
        """Its text, with what is wrong beside it."""
        user = await signed_in(request.scope)
        if user is None:
            return Redirect(admin_address(), status_code=303)
        refusal = await _find(refusal_id)
        return _mending(request, user, refusal, text=as_text(refusal))

    @post("/{refusal_id:uuid}", request_max_body_size=LARGEST_FORM)
    async def change(
        self, request: Request[Any, Any, Any], refusal_id: UUID
    ) -> Template | Redirect:
        """Check the text, admit it, or discard the webhook."""
        user = await signed_in(request.scope)
        if user is None:
            raise NotAuthorizedException(f"sign in at {admin_address()} to do this")
        form = await request.form()
        if not hmac.compare_digest(str(form.get("token", "")).encode(), _token(request).encode()):
            raise PermissionDeniedException(
                "the form is not one of this session: open the page again and send it from there"
            )
        refusal = await _find(refusal_id)
        # Browsers send line breaks as CR LF, whatever they were.
        text = str(form.get("text", "")).replace("\r\n", "\n")
        try:
            match form.get("action"):
                case "discard":
                    await discard(running_pool(), [refusal_id])
                    log.info("discarded", refusal_id=str(refusal_id), by=f"user:{user.id}")
                    return Redirect(f"{address(PATH)}?discarded=1", status_code=303)
                case "admit":
                    return await _admit(request, user, refusal, text, form)
                case _:
                    return _mending(request, user, refusal, text=text)
        except CANNOT_ASK as error:
            raise database_is_away() from error


async def _admit(
    request: Request[Any, Any, Any], user: BaseUser, refusal: Refusal, text: str, form: Any
) -> Template | Redirect:
    try:
        admission = await admit_mended(
            request.app.state.intake,
            running_pool(),
            refusal,
            body=_body(refusal, text),
            by=user.username,
            accept_unsigned="accept_unsigned" in form,
            without_sender="without_sender" in form,
        )
    except (RefusedError, MendingError, NotStoredError) as error:
        return _mending(request, user, refusal, text=text, error=str(error))
    log.info(
        "admitted",
        refusal_id=str(refusal.id),
        email_id=str(admission.email_id),
        by=f"user:{user.id}",
    )
    return Redirect(f"{address(PATH)}?admitted={admission.email_id}", status_code=303)


def _mending(
    request: Request[Any, Any, Any],
    user: BaseUser,
    refusal: Refusal,
    *,
    text: str,
    error: str | None = None,
) -> Template:
    findings = examine_for_page(request.app.state.intake, refusal, _body(refusal, text))
    return _page(
        "refusal.html",
        user,
        refusal=refusal,
        text=text,
        findings=findings,
        error=error,
        token=_token(request),
        is_editable=refusal.size <= LARGEST_ON_A_PAGE,
    )


def _body(refusal: Refusal, text: str) -> bytes | None:
    """None where the operator changed nothing: then the bytes that came are meant."""
    is_unchanged = text == as_text(refusal).replace("\r\n", "\n")
    return None if is_unchanged and refusal.body is not None else text.encode("utf-8", "replace")


def _page(template: str, user: BaseUser, **context: object) -> Template:
    return Template(
        template,
        context={
            "username": user.username,
            "file": file_url,
            "admin": admin_address(),
            "overview": address("/"),
            "quarantine": address(PATH),
            **context,
        },
    )


def _after(summary: Summary) -> str:
    """The query of the page that begins after this one."""
    cursor = Cursor(summary.received_at, summary.id).encode()
    return urlencode({"signed": int(summary.is_signed), "after": cursor})


def _done(request: Request[Any, Any, Any]) -> str | None:
    """What the operator did on the page before."""
    if "discarded" in request.query_params:
        return "It is discarded."
    try:
        return f"It is email {UUID(request.query_params.get('admitted', ''))} now."
    except ValueError:
        return None


def _token(request: Request[Any, Any, Any]) -> str:
    """What a form of this session carries: another site can neither read nor guess it."""
    session = request.cookies.get(SESSION_COOKIE, "")
    return hashlib.sha256(f"mailroom quarantine {session}".encode()).hexdigest()


async def _find(refusal_id: UUID) -> Refusal:
    try:
        refusal = await find_refusal(running_pool(), refusal_id)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    if refusal is None:
        raise NotFoundException(f"there is no {refusal_id} in the quarantine")
    return refusal
