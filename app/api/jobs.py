"""`/api/v1/jobs`: emails and their jobs, for programs."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import structlog
from litestar import Request, delete, get, post
from litestar.exceptions import (
    ClientException,
    NotFoundException,
    ServiceUnavailableException,
)

from app.api import emails
from app.api.job_schemas import (
    BulkRetryAnswer,
    BulkRetryRequest,
    JobDetail,
    JobEvent,
    JobPage,
    JobSummary,
    RetryRequest,
    StateCount,
)
from app.api.parts import EVERYWHERE, EXAMPLE_CURSOR, ApiController, invalid, query
from app.api.search import Cursor, CursorError, Search, SearchError
from app.api.tokens import acting, needs
from app.audit.acts import Act
from app.audit.log import in_steps, in_transaction, result_of, write
from app.database.engine import running_pool
from app.http.problems import problem_response
from app.http.strict import refuse_unknown_parameters
from app.jobs.story import tell_story
from app.jobs.transitions import operators
from app.jobs.transitions.erasing import StillWritingError
from app.models.api_token import Scope
from app.models.fit import read_json
from app.models.incoming_email import ProcessingStatus, SyncStatus
from app.retention.erasure import erase_email
from app.settings import get_settings

log = structlog.get_logger(__name__)

DEFAULT_PAGE = 50
LARGEST_PAGE = 200


# What a request without a body means.
RETRY_BY_DEFAULT = RetryRequest()
BULK_RETRY_BY_DEFAULT = BulkRetryRequest()


NOT_FOUND = {404: problem_response("There is no such email")}


class NotRetryableError(ClientException):
    """The email is in a state that is not retried."""

    status_code = 409


class JobsController(ApiController):
    """The list of jobs. An email and its job are one: they share their id."""

    path = "/api/v1/jobs"
    tags = ["Jobs"]  # noqa: RUF012 - Litestar declares it so
    guards = [needs(Scope.READ), refuse_unknown_parameters]  # noqa: RUF012

    @get(summary="List emails", operation_id="listJobs", responses=EVERYWHERE)
    async def list_jobs(
        self,
        status: Annotated[
            list[ProcessingStatus] | None, query("In one of these states", ["failed"])
        ] = None,
        ticket_id: Annotated[str | None, query("Of this ticket", "35436")] = None,
        from_email: Annotated[str | None, query("The whole address", "erika@example.com")] = None,
        subject: Annotated[str | None, query("A part of it", "Päckchen")] = None,
        error: Annotated[str | None, query("A part of why they failed", "ConnectionError")] = None,
        sync_status: Annotated[SyncStatus | None, query("Of the delivery", "pending")] = None,
        received_from: Annotated[
            datetime | None,
            query("Not before; UTC where no zone is given", "2026-11-23T00:00:00+01:00"),
        ] = None,
        received_until: Annotated[datetime | None, query("Before", "2026-11-24T00:00:00Z")] = None,
        limit: Annotated[
            int, query("Most of a page", DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)
        ] = DEFAULT_PAGE,
        cursor: Annotated[
            str | None, query("`next_cursor` of the page before", EXAMPLE_CURSOR.encode())
        ] = None,
    ) -> JobPage:
        """The newest received first. Pages stay right while emails arrive."""
        search = Search(
            status=status or (),
            ticket_id=ticket_id,
            from_email=from_email,
            subject=subject,
            error=error,
            sync_status=sync_status,
            received_from=received_from,
            received_until=received_until,
        )
        try:
            after = Cursor.decode(cursor) if cursor is not None else None
            page, following = await emails.list_emails(
                running_pool(), search, limit=limit, after=after
            )
        except CursorError as wrong:
            raise invalid("cursor", str(wrong)) from wrong
        except SearchError as wrong:
            raise invalid(wrong.field, str(wrong)) from wrong
        return JobPage(
            items=[_summary(row) for row in page],
            next_cursor=following.encode() if following else None,
        )

    @get(
        "/counts",
        summary="Count emails by state",
        operation_id="countJobs",
        responses=EVERYWHERE,
    )
    async def count_jobs(self) -> dict[ProcessingStatus, StateCount]:
        """Each state with how many emails are in it and when the oldest of them was received."""
        counts = await emails.count_by_status(running_pool())
        return {
            status: StateCount(emails=count.emails, oldest_received_at=count.oldest_received_at)
            for status, count in counts.items()
        }

    @get(
        "/{job_id:uuid}",
        summary="One email with its whole story",
        operation_id="getJob",
        responses=EVERYWHERE | NOT_FOUND,
    )
    async def get_job(self, job_id: UUID) -> JobDetail:
        """Each state with its time, each attempt with its error, its worker, what comes next."""
        return await _detail(job_id)

    @post(
        "/{job_id:uuid}/retry",
        status_code=200,
        summary="Process an email again",
        operation_id="retryJob",
        guards=[needs(Scope.OPERATE)],
        responses=EVERYWHERE
        | NOT_FOUND
        | {409: problem_response("It is in a state that is not retried")},
    )
    async def retry_job(
        self, request: Request[Any, Any, Any], job_id: UUID, data: RetryRequest = RETRY_BY_DEFAULT
    ) -> JobDetail:
        """A failed email is queued again from its first attempt; a completed one if forced."""
        by = request.state.token_name
        async with in_transaction(running_pool()) as connection:
            is_done = await operators.retry(connection, job_id, by=by, force=data.force)
            result = result_of(is_done)
            await write(connection, acting(request), Act.EMAIL_RETRY, [job_id], result=result)
        if not is_done:
            status = (await _detail(job_id)).job.status
            force = ", or completed and `force` is true" if not data.force else " or completed"
            raise NotRetryableError(
                f"the email is {status}: it can be retried once it is failed{force}, and as long as"
                " its content was neither erased nor removed because of its age"
            )
        log.info("retried", email_id=str(job_id), by=by)
        return await _detail(job_id)

    @post(
        "/retry",
        status_code=200,
        summary="Process failed emails again",
        operation_id="retryJobs",
        guards=[needs(Scope.OPERATE)],
        responses=EVERYWHERE,
    )
    async def retry_jobs(
        self, request: Request[Any, Any, Any], data: BulkRetryRequest = BULK_RETRY_BY_DEFAULT
    ) -> BulkRetryAnswer:
        """Count the failed emails that are meant; with `dry_run` false, queue them again."""
        by = request.state.token_name
        search = Search(
            status=(ProcessingStatus.FAILED,),
            ticket_id=data.ticket_id,
            from_email=data.from_email,
            subject=data.subject,
            error=data.error,
            received_from=data.received_from,
            received_until=data.received_until,
            completed_from=data.failed_from,
            completed_until=data.failed_until,
        )
        try:
            matched = await emails.count_matching(running_pool(), search)
            retried = 0 if data.dry_run else await self._retry_all(request, search, by)
        except SearchError as wrong:
            raise invalid(wrong.field, str(wrong)) from wrong
        if retried:
            log.info("retried_in_bulk", emails=retried, by=by)
        return BulkRetryAnswer(matched=max(matched, retried), retried=retried)

    async def _retry_all(self, request: Request[Any, Any, Any], search: Search, by: str) -> int:
        pool, details = running_pool(), {"filter": search.told()}
        async with in_steps(pool, acting(request), Act.EMAIL_RETRY, details=details) as steps:
            steps.count = await emails.retry_failed(pool, search, by=by)
        return steps.count

    @delete(
        "/{job_id:uuid}",
        summary="Erase an email",
        operation_id="eraseJob",
        guards=[needs(Scope.OPERATE)],
        responses=EVERYWHERE | NOT_FOUND,
    )
    async def erase_job(self, request: Request[Any, Any, Any], job_id: UUID) -> None:
        """Delete it for good, whatever its state, and store it never again. A record of it stays,
        at `/api/v1/erasures`. Its backups are yours to look after."""
        try:
            was_there = await erase_email(
                running_pool(), job_id, by=request.state.token_name, actor=acting(request)
            )
        except StillWritingError as error:
            raise ServiceUnavailableException(f"a worker goes on with it: {error}") from error
        if not was_there:
            raise _no_such_email(job_id)


async def _detail(job_id: UUID) -> JobDetail:
    async with running_pool().acquire() as connection:
        row = await emails.read_email(connection, job_id)
        story = await tell_story(connection, job_id, get_settings())
    if row is None or story is None:
        raise _no_such_email(job_id)
    return JobDetail(
        job=_summary(row),
        events=[JobEvent(at=event.at, what=event.what) for event in story.events],
        next_step=story.next_step,
        next_at=story.next_at,
        body_text=row["raw_body_text"],
        body_html=row["raw_body_html"],
        cleaned_body=row["cleaned_body"],
        extracted_data=read_json(row["extracted_data"]),
        attachments=read_json(row["attachment_urls"]),
    )


def _summary(row: dict[str, Any]) -> JobSummary:
    return JobSummary(
        id=row["id"],
        status=ProcessingStatus(row["processing_status"]),
        ticket_id=row["zendesk_ticket_id"],
        from_email=row["from_email"],
        from_name=row["from_name"],
        subject=row["subject"],
        received_at=row["received_at"],
        created_at=row["created_at"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        next_attempt_at=row["next_attempt_at"],
        retry_count=row["retry_count"],
        error=row["processing_error"],
        sync_status=SyncStatus(row["sync_status"]),
        sync_error=row["sync_error"],
        sync_retry_count=row["sync_retry_count"],
        sync_next_attempt_at=row["sync_next_attempt_at"],
        synced_at=row["synced_at"],
    )


def _no_such_email(job_id: UUID) -> NotFoundException:
    return NotFoundException(f"there is no email {job_id}: its id is in the webhook's answer")
