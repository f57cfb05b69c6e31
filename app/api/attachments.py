"""`/api/v1/jobs/{id}/attachments`: the files of an email, for programs. What is given out came from
strangers: a browser saves it and runs nothing of it."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import structlog
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import (
    HTTPException,
    NotFoundException,
    ServiceUnavailableException,
)
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import Stream

from app.api.attachment_schemas import AttachmentList, AttachmentSummary, summary_of
from app.api.parts import EVERYWHERE, ApiController
from app.api.tokens import acting, needs
from app.attachments import upkeep
from app.attachments.given import Archive, Attachment
from app.attachments.names import content_disposition
from app.attachments.store import MissingBytesError, StoreError
from app.audit.acts import Act
from app.audit.log import in_transaction, result_of, write
from app.database.engine import running_pool
from app.http.bodies import RETRY_AFTER_SECONDS
from app.http.problems import problem, problem_response
from app.http.ranges import NoSuchPartError, Part, asked_part, is_known, is_same
from app.http.strict import refuse_unknown_parameters
from app.models.api_token import Scope
from app.models.email_attachment import AttachmentState
from app.settings import get_settings

log = structlog.get_logger(__name__)

# States in which asking again later, or after an operator did something, may help.
MAY_COME = (AttachmentState.PENDING, AttachmentState.FAILED)
ANY_BYTES = "application/octet-stream"
MEDIA_TYPE = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,60}", re.ASCII
)
# Whatever opens it anyway is in an origin of its own.
SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"

FIND_EMAIL = "SELECT erased_at FROM incoming_emails WHERE id = $1"

Position = Annotated[
    int, Parameter(description="Its place in the list, from 0", ge=0, le=2**31 - 1)
]
NO_EMAIL = {404: problem_response("There is no such email")}


def _bytes(description: str) -> ResponseSpec:
    return ResponseSpec(
        bytes, generate_examples=False, description=description, media_type=ANY_BYTES
    )


class NotThereError(HTTPException):
    """There are no bytes; 409 where there may be some yet, 410 where not."""


class AttachmentsController(ApiController):
    """The files of one email."""

    path = "/api/v1/jobs/{job_id:uuid}/attachments"
    tags = ["Jobs"]  # noqa: RUF012 - Litestar declares it so
    guards = [needs(Scope.READ), refuse_unknown_parameters]  # noqa: RUF012

    @get(
        summary="List the files of an email",
        operation_id="listAttachments",
        responses=EVERYWHERE | NO_EMAIL,
    )
    async def list_attachments(self, job_id: UUID, state: State) -> AttachmentList:
        """Each file that the email names: whether its bytes are kept, and why not."""
        archive: Archive = state.archive
        found = await archive.attachments(running_pool(), job_id)
        if not found:
            await _see_that_it_exists(job_id)
        return AttachmentList(items=[summary_of(attachment) for attachment in found])

    @get(
        "/{position:int}",
        summary="Download a file",
        operation_id="downloadAttachment",
        media_type=ANY_BYTES,
        responses=EVERYWHERE
        | {
            200: _bytes("All of it"),
            206: _bytes("The part that `Range` asks for"),
            304: _bytes("`If-None-Match` names what there is: nothing follows"),
            404: problem_response("There is no such email, or it names no such file"),
            409: problem_response("It is not there yet, or fetching it failed: `detail` says why"),
            410: problem_response("It is not kept, or not any more: `detail` says why"),
            416: problem_response("`Range` asks for none of its bytes"),
        },
    )
    async def download_attachment(
        self, request: Request[Any, Any, Any], job_id: UUID, position: Position, state: State
    ) -> Response[Any]:
        """The bytes as they came, always as a download. `Range` with one part, `If-Range` and
        `If-None-Match` are heeded; the ETag is the SHA-256."""
        archive: Archive = state.archive
        attachment = await archive.attachment(running_pool(), job_id, position)
        if attachment is None:
            raise await _no_such_file(job_id, position)
        if not attachment.is_kept:
            raise _not_there(attachment)
        await write(running_pool(), acting(request), Act.FILE_EXPORT, [f"{job_id}/{position}"])
        return await answer_with_bytes(request, attachment)

    @post(
        "/{position:int}/fetch",
        status_code=200,
        summary="Fetch a file again",
        operation_id="fetchAttachment",
        guards=[needs(Scope.OPERATE)],
        responses=EVERYWHERE
        | {
            404: problem_response("There is no such email, or it names no such file"),
            409: problem_response("Nothing can be fetched: `detail` says why"),
            410: problem_response("Its content was erased"),
        },
    )
    async def fetch_attachment(
        self, request: Request[Any, Any, Any], job_id: UUID, position: Position, state: State
    ) -> AttachmentSummary:
        """Have a worker fetch it from where the email says it is, with all its tries; also if it is
        kept, and its bytes are missing or changed. One that is kept and whole, or `pending`, stays
        so."""
        settings = get_settings()
        if settings.attachments == "off":
            raise NotThereError(
                "MAILROOM_ATTACHMENTS is off: no worker would fetch anything",
                status_code=HTTPStatus.CONFLICT,
            )
        archive: Archive = state.archive
        try:
            damaged = await upkeep.find_damaged(
                running_pool(), job_id, position, open_store=archive.open_store
            )
        except StoreError as error:
            raise _store_away(error) from error
        async with in_transaction(running_pool()) as connection:
            again = await upkeep.fetch_again(
                connection,
                job_id,
                position,
                damaged=damaged,
                most=settings.attachment_max_count,
            )
            name, result = f"{job_id}/{position}", result_of(again)
            await write(connection, acting(request), Act.FILE_FETCH, [name], result=result)
        attachment = await archive.attachment(running_pool(), job_id, position)
        if attachment is None:
            raise await _no_such_file(job_id, position)
        if again:
            log.info("fetched_again", email_id=str(job_id), by=request.state.token_name)
        elif attachment.state not in (AttachmentState.PENDING, AttachmentState.KEPT):
            raise NotThereError(
                f"it cannot be fetched: {attachment.why}", status_code=HTTPStatus.CONFLICT
            )
        return summary_of(attachment)


async def answer_with_bytes(
    request: Request[Any, Any, Any], attachment: Attachment
) -> Response[Any]:
    """The bytes of a file that is kept, as far as the request wants them.

    Raises:
        NotThereError: the store has lost them.
        ServiceUnavailableException: the store is away.
    """
    size, etag = attachment.size or 0, f'"{attachment.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": content_disposition(attachment.safe_name),
        "Content-Security-Policy": SANDBOX,
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    part: Part | None = None
    if is_same(request.headers.get("if-range"), etag):
        try:
            part = asked_part(request.headers.get("range"), size)
        except NoSuchPartError as error:
            return problem(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                str(error),
                headers={"Content-Range": f"bytes */{size}"},
            )
    if part is not None:
        headers["Content-Range"] = part.content_range(size)
    start, end = (part.start, part.end) if part else (0, size)
    try:
        pieces = await _begun(attachment.open(start, end if part else None))
    except MissingBytesError:
        log.error("attachment_bytes_missing", sha256=attachment.sha256)
        raise NotThereError(
            "the store has its bytes no longer: `mailroom attachments verify` finds what else is "
            "missing",
            status_code=HTTPStatus.GONE,
        ) from None
    except StoreError as error:
        raise _store_away(error) from error
    return Stream(
        pieces,
        status_code=HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK,
        headers={
            **headers,
            # The framework's own argument is overruled by what its description of the route says.
            "Content-Type": _media_type(attachment),
            "Content-Length": str(end - start),
        },
    )


async def _begun(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same pieces, of which the first is there: what is wrong is known before the answer."""
    first = await anext(pieces, b"")

    async def all_pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return all_pieces()


def _store_away(error: StoreError) -> HTTPException:
    log.warning("attachment_store_away", error=str(error))
    return ServiceUnavailableException(
        "the store of attachments cannot be read: ask again",
        headers={"Retry-After": RETRY_AFTER_SECONDS},
    )


def _media_type(attachment: Attachment) -> str:
    found = (attachment.content_type or "").partition(";")[0].strip().lower()
    return found if MEDIA_TYPE.fullmatch(found) else ANY_BYTES


def _not_there(attachment: Attachment) -> NotThereError:
    may_come = attachment.state in MAY_COME
    return NotThereError(
        f"the file is not kept, it is {attachment.state}: {attachment.why}",
        status_code=HTTPStatus.CONFLICT if may_come else HTTPStatus.GONE,
    )


async def _no_such_file(job_id: UUID, position: int) -> HTTPException:
    await _see_that_it_exists(job_id)
    return NotFoundException(
        f"the email has no attachment {position}: .../attachments lists what it has"
    )


async def _see_that_it_exists(job_id: UUID) -> None:
    row = await running_pool().fetchrow(FIND_EMAIL, job_id)
    if row is None:
        raise NotFoundException(f"there is no email {job_id}: its id is in the webhook's answer")
    if row["erased_at"] is not None:
        raise NotThereError("the content of this email was erased", status_code=HTTPStatus.GONE)
