"""`/api/v1/erasures`: erasures by sender, ticket or id, and the records of those that were."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import attrs
import structlog
from litestar import Request, get, post
from litestar.exceptions import NotFoundException

from app.api.job_schemas import about
from app.api.parts import EVERYWHERE, ApiController, invalid, query
from app.api.tokens import acting, needs
from app.database.engine import running_pool
from app.http.problems import problem_response
from app.http.strict import refuse_unknown_parameters
from app.jobs.transitions.erasing import Erased, StillWritingError
from app.models.api_token import Scope
from app.models.erasure import ErasedBy
from app.retention import erasure, erasure_records
from app.retention.criteria import Criterion, CriterionError
from app.retention.erasure_records import Record

log = structlog.get_logger(__name__)

# A request must not outlive the patience of proxies; a worker goes on with what is left.
WORKED_OFF_SECONDS = 5.0
DEFAULT_PAGE = 50
LARGEST_PAGE = 1_000


@attrs.frozen(kw_only=True)
class ErasureRequest:
    """What is to be erased: one of the first three."""

    sender: Annotated[str | None, about("All emails of this address", "erika@example.com")] = None
    ticket_id: Annotated[str | None, about("All emails of this ticket", "35436")] = None
    email_id: Annotated[UUID | None, about("This one email")] = None
    dry_run: Annotated[bool, about("Count what would go, and erase nothing", True)] = True


@attrs.frozen(kw_only=True)
class ErasureCounts:
    """How much is gone, or would go."""

    emails: int
    files: int
    entries: Annotated[int, about("Of their histories")]
    deliveries: Annotated[int, about("That were pending")]
    refused: Annotated[int, about("Webhooks in the quarantine, and mail that Zendesk suspended")]
    waiting_files: Annotated[int, about("Files that waited for their email")]


@attrs.frozen(kw_only=True)
class ErasureRecord:
    """What is kept of an erasure. Nothing in it tells whom it was about."""

    id: UUID
    kind: Annotated[ErasedBy, about("By what the emails were found", "sender")]
    asked_by: Annotated[str, about("The token's name, an operator, or Zendesk", "crm")]
    asked_at: datetime
    ended_at: Annotated[datetime | None, about("Null: a worker goes on with it")]
    failures: Annotated[int, about("How often a worker could not go on with it")]
    last_error: Annotated[str | None, about("The kind of the last failure")]
    erased: ErasureCounts


@attrs.frozen(kw_only=True)
class ErasureAnswer:
    """What was found, or what became of it."""

    found: Annotated[ErasureCounts | None, about("Of a dry run")]
    record: Annotated[ErasureRecord | None, about("Of an erasure")]


class ErasuresController(ApiController):
    """Erasures. Nothing of what is erased can be had again."""

    path = "/api/v1/erasures"
    tags = ["Erasures"]  # noqa: RUF012 - Litestar declares it so
    guards = [needs(Scope.OPERATE), refuse_unknown_parameters]  # noqa: RUF012

    @post(
        summary="Erase by sender, ticket or id",
        operation_id="erase",
        status_code=200,
        responses=EVERYWHERE,
    )
    async def erase(self, request: Request[Any, Any, Any], data: ErasureRequest) -> ErasureAnswer:
        """Rows, files, histories, refused copies and pending deliveries go; the receiver of
        deliveries is told. A later delivery of the same email is a duplicate. What takes longer
        than a few seconds is gone on with by a worker: `ended_at` is null until then."""
        criterion, pool = _criterion_of(data), running_pool()
        if data.dry_run:
            found = await erasure.survey(pool, criterion)
            return ErasureAnswer(found=_counts(found), record=None)
        erasure_id = await erasure.begin(
            pool, criterion, by=request.state.token_name, actor=acting(request)
        )
        try:
            await erasure.work_off(pool, erasure_id, criterion, seconds=WORKED_OFF_SECONDS)
        except StillWritingError:
            log.warning("erasure_waits_for_a_session", erasure_id=str(erasure_id))
        return ErasureAnswer(found=None, record=await _read(erasure_id))

    @get(summary="List erasures", operation_id="listErasures", responses=EVERYWHERE)
    async def list_erasures(
        self,
        limit: Annotated[
            int, query("Most of them", DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)
        ] = DEFAULT_PAGE,
    ) -> list[ErasureRecord]:
        """The records, those asked for last first."""
        return [
            _record(record) for record in await erasure_records.list_newest(running_pool(), limit)
        ]

    @get(
        "/{erasure_id:uuid}",
        summary="How far an erasure is",
        operation_id="getErasure",
        responses=EVERYWHERE | {404: problem_response("There is no such erasure")},
    )
    async def get_erasure(self, erasure_id: UUID) -> ErasureRecord:
        """One record."""
        return await _read(erasure_id)


async def _read(erasure_id: UUID) -> ErasureRecord:
    record = await erasure_records.read(running_pool(), erasure_id)
    if record is None:
        raise NotFoundException(f"there is no erasure {erasure_id}")
    return _record(record)


def _criterion_of(data: ErasureRequest) -> Criterion:
    given = {
        name: value
        for name in ("sender", "ticket_id", "email_id")
        if (value := getattr(data, name)) is not None
    }
    if len(given) != 1:
        raise invalid("sender", "give one of sender, ticket_id and email_id")
    try:
        match given:
            case {"sender": address}:
                return Criterion.sender(address)
            case {"ticket_id": ticket}:
                return Criterion.ticket(ticket)
        return Criterion.email(given["email_id"])
    except CriterionError as wrong:
        raise invalid(next(iter(given)), str(wrong)) from wrong


def _record(record: Record) -> ErasureRecord:
    return ErasureRecord(
        id=record.id,
        kind=record.kind,
        asked_by=record.asked_by,
        asked_at=record.asked_at,
        ended_at=record.ended_at,
        failures=record.failures,
        last_error=record.last_error,
        erased=_counts(record.erased),
    )


def _counts(erased: Erased) -> ErasureCounts:
    return ErasureCounts(**attrs.asdict(erased))
