"""`/api/v1/quarantine`: refused webhooks, for programs."""

import base64
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import attrs
import structlog
from litestar import Request, delete, get, post
from litestar.exceptions import ClientException, NotFoundException
from litestar.openapi.spec import Example
from litestar.params import Parameter

from app.api.parts import EVERYWHERE, EXAMPLE_CURSOR, ApiController, database_away, invalid, query
from app.api.search import Cursor, CursorError
from app.api.tokens import acting, needs
from app.database.engine import running_pool
from app.database.errors import DATABASE_AWAY
from app.http.problems import problem_response
from app.http.strict import refuse_unknown_parameters
from app.intake.mending import MendingError, admit_mended, as_text, examine_for_page
from app.intake.refusals import Refusal, Summary, discard, find_refusal, summaries
from app.intake.refused import RefusedError
from app.intake.row_writer import NotStoredError
from app.intake.unstorable import UnstorableError
from app.models.api_token import Scope
from app.models.quarantined_webhook import RefusalReason
from app.models.webhook_status import WebhookStatus
from app.settings import get_settings

log = structlog.get_logger(__name__)

NOT_FOUND = {404: problem_response("There is no such refused webhook")}


def _about(description: str, example: object = None) -> Any:
    examples = None if example is None else [Example(value=example)]
    return Parameter(description=description, examples=examples)


@attrs.frozen(kw_only=True)
class RefusalPage:
    """Refused webhooks, the oldest first."""

    items: list[Summary]
    next_cursor: Annotated[
        str | None, _about("Send it as `cursor` to get the next page; null: this is the last")
    ]


@attrs.frozen(kw_only=True)
class RefusalDetail:
    """A refused webhook, and what keeps it from being an email."""

    id: UUID
    received_at: datetime
    reason: RefusalReason
    detail: Annotated[str, _about("What its sender was told")]
    headers: dict[str, str]
    text: Annotated[str | None, _about("Its body as text to be mended; null: it was not kept")]
    body_base64: Annotated[str | None, _about("The bytes as they came")]
    is_genuine: Annotated[bool, _about("Its signature is right by today's secrets", True)]
    wrong: Annotated[list[str], _about("What is wrong with it now, in words")]


@attrs.frozen(kw_only=True)
class AdmitRequest:
    """How a refused webhook is to be admitted."""

    body: Annotated[str | None, _about("The mended JSON, as text; null: as it came")] = None
    accept_unsigned: Annotated[bool, _about("Although its signature is not right", False)] = False
    without_sender: Annotated[bool, _about("With an empty sender", False)] = False


@attrs.frozen(kw_only=True)
class AdmitAnswer:
    """What became of it."""

    status: WebhookStatus
    email_id: UUID | None


AS_IT_CAME = AdmitRequest()


class NotAdmittedError(ClientException):
    """It is still no email, or nobody answers for it."""

    status_code = 409


class QuarantineController(ApiController):
    """The quarantine: what was refused at the webhook route is kept for a while."""

    path = "/api/v1/quarantine"
    tags = ["Quarantine"]  # noqa: RUF012 - Litestar declares it so
    guards = [needs(Scope.READ), refuse_unknown_parameters]  # noqa: RUF012
    exception_handlers = dict.fromkeys((*DATABASE_AWAY, NotStoredError), database_away)

    @get(summary="List refused webhooks", operation_id="listRefused", responses=EVERYWHERE)
    async def list_refused(
        self,
        reason: Annotated[RefusalReason | None, query("Of this reason", "unreadable")] = None,
        limit: Annotated[int, query("Most of a page", 50, ge=1, le=200)] = 50,
        cursor: Annotated[
            str | None, query("`next_cursor` of the page before", EXAMPLE_CURSOR.encode())
        ] = None,
    ) -> RefusalPage:
        """The oldest first, without their bodies."""
        try:
            after = Cursor.decode(cursor) if cursor is not None else None
        except CursorError as wrong:
            raise invalid("cursor", str(wrong)) from wrong
        found = await summaries(
            running_pool(),
            reason=reason,
            limit=limit + 1,
            after=(after.received_at, after.id) if after else None,
        )
        page = found[:limit]
        following = Cursor(page[-1].received_at, page[-1].id) if len(found) > limit else None
        return RefusalPage(items=page, next_cursor=following.encode() if following else None)

    @get(
        "/{refusal_id:uuid}",
        summary="One refused webhook",
        operation_id="getRefused",
        responses=EVERYWHERE | NOT_FOUND,
    )
    async def get_refused(self, request: Request[Any, Any, Any], refusal_id: UUID) -> RefusalDetail:
        """Its text, why it was refused, and what is wrong with it by today's settings."""
        refusal = await _find(refusal_id)
        findings = examine_for_page(request.app.state.intake, refusal)
        body = refusal.body
        return RefusalDetail(
            id=refusal.id,
            received_at=refusal.received_at,
            reason=refusal.reason,
            detail=refusal.detail,
            headers=dict(refusal.headers),
            text=None if body is None else as_text(refusal),
            body_base64=None if body is None else base64.b64encode(body).decode(),
            is_genuine=findings.is_genuine,
            wrong=findings.wrong,
        )

    @post(
        "/{refusal_id:uuid}/admit",
        status_code=200,
        summary="Admit a refused webhook",
        operation_id="admitRefused",
        # The whole email, each of its characters as JSON may write it.
        request_max_body_size=2 * get_settings().max_body_bytes,
        guards=[needs(Scope.OPERATE)],
        responses=EVERYWHERE
        | NOT_FOUND
        | {409: problem_response("It is still no email: all is named")},
    )
    async def admit_refused(
        self,
        request: Request[Any, Any, Any],
        refusal_id: UUID,
        data: AdmitRequest = AS_IT_CAME,
    ) -> AdmitAnswer:
        """As it came, or as an operator mended it; with its time of receipt."""
        refusal = await _find(refusal_id)
        by = request.state.token_name
        try:
            admission = await admit_mended(
                request.app.state.intake,
                running_pool(),
                refusal,
                body=None if data.body is None else data.body.encode("utf-8", "replace"),
                by=by,
                actor=acting(request),
                accept_unsigned=data.accept_unsigned,
                without_sender=data.without_sender,
            )
        except (RefusedError, UnstorableError, MendingError) as error:
            raise NotAdmittedError(str(error)) from error
        log.info("admitted", refusal_id=str(refusal_id), email_id=str(admission.email_id), by=by)
        return AdmitAnswer(status=admission.status, email_id=admission.email_id)

    @delete(
        "/{refusal_id:uuid}",
        summary="Discard a refused webhook",
        operation_id="discardRefused",
        guards=[needs(Scope.OPERATE)],
        responses=EVERYWHERE | NOT_FOUND,
    )
    async def discard_refused(self, request: Request[Any, Any, Any], refusal_id: UUID) -> None:
        """Delete it for good."""
        await _find(refusal_id)
        await discard(running_pool(), [refusal_id], actor=acting(request))
        log.info("discarded", refusal_id=str(refusal_id), by=request.state.token_name)


async def _find(refusal_id: UUID) -> Refusal:
    refusal = await find_refusal(running_pool(), refusal_id)
    if refusal is None:
        raise NotFoundException(f"there is no {refusal_id} in the quarantine")
    return refusal
