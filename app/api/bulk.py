"""`/api/v1/bulk-actions`: one action on many emails, for programs."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import attrs
from litestar import Request, get, post
from litestar.exceptions import ClientException, NotFoundException

from app.api.bulk_selection import select
from app.api.job_schemas import EXAMPLE_ID, about
from app.api.parts import EVERYWHERE, ApiController, invalid, query
from app.api.tokens import acting, needs
from app.bulk import asking, rows
from app.bulk.acting import NotPossibleError
from app.bulk.asking import AskingError
from app.bulk.rows import Bulk
from app.database.engine import running_pool
from app.http.problems import problem_response
from app.http.strict import refuse_unknown_parameters
from app.models.api_token import Scope
from app.models.bulk_action import Action, BulkState
from app.settings import get_settings

DEFAULT_PAGE = 50
LARGEST_PAGE = 200
MOST_LEFT_OUT = 1_000


@attrs.frozen(kw_only=True)
class BulkRequest:
    """What is to be done, and to which emails: those of a search, or these."""

    action: Annotated[Action, about("What is done to each", "retry")]
    search: Annotated[
        str | None, about("As typed on the page of emails; empty: all", "status:failed error:503")
    ] = None
    ids: Annotated[list[UUID] | None, about("These emails, at most 1,000", [EXAMPLE_ID])] = None
    reason: Annotated[str | None, about("Why; settle and discard need it")] = None
    confirm: Annotated[
        int | None, about("To erase: how many emails that are, as the preview says")
    ] = None
    dry_run: Annotated[bool, about("Count what would happen only", True)] = True


@attrs.frozen(kw_only=True)
class BulkPreview:
    """What would happen now."""

    total: int
    can: Annotated[int, about("To so many it would be done", 95)]
    cannot: Annotated[dict[str, int], about("To others not: how many, by why", {"completed": 5})]
    first: Annotated[list[UUID], about("The first that it would come to")]


@attrs.frozen(kw_only=True)
class BulkStatus:
    """A bulk action, and how far it is. `done + skipped + failed` were looked at."""

    id: UUID
    action: Action
    search: Annotated[str | None, about("What found its emails; null: they were named")]
    reason: str | None
    asked_by: Annotated[str, about("An operator, or a token's name", "crm")]
    asked_at: datetime
    state: BulkState
    total: Annotated[int, about("Emails that are meant; fixed when it began")]
    done: int
    skipped: Annotated[int, about("They were in no state for it by then")]
    failed: Annotated[int, about("The database refused it")]
    reasons: Annotated[dict[str, int], about("Skipped and failed ones by why", {"completed": 5})]
    ended_at: datetime | None


@attrs.frozen(kw_only=True)
class BulkAnswer:
    """What would happen, or what began."""

    preview: Annotated[BulkPreview | None, about("Of a dry run")]
    begun: Annotated[BulkStatus | None, about("Workers carry it out; ask for it by its id")]


@attrs.frozen(kw_only=True)
class LeftOutEmail:
    """An email to which it was not done."""

    id: UUID
    why: str


NOT_FOUND = {404: problem_response("There is no such bulk action")}


class NotNowError(ClientException):
    """It is in another state."""

    status_code = 409


class BulkController(ApiController):
    """One action on many emails: workers carry it out in small batches."""

    path = "/api/v1/bulk-actions"
    tags = ["Bulk actions"]  # noqa: RUF012 - Litestar declares it so
    guards = [needs(Scope.OPERATE), refuse_unknown_parameters]  # noqa: RUF012

    @post(
        status_code=200,
        summary="Preview a bulk action, or begin it",
        operation_id="beginBulkAction",
        responses=EVERYWHERE | {409: problem_response("It is possible with no email here")},
    )
    async def begin(self, request: Request[Any, Any, Any], data: BulkRequest) -> BulkAnswer:
        """Count what would happen; with `dry_run` false, have the workers do it. The emails that
        are meant are fixed then; what changes before its turn comes is looked at anew."""
        pool, settings = running_pool(), get_settings()
        try:
            selection = select(data.search, data.ids or ())
            if data.dry_run:
                found = await asking.preview(pool, data.action, selection, settings)
                first = [row["id"] for row in found.first]
                preview = BulkPreview(
                    total=found.total, can=found.can, cannot=dict(found.cannot), first=first
                )
                return BulkAnswer(preview=preview, begun=None)
            begun = await asking.start(
                pool,
                uuid4(),
                data.action,
                selection,
                settings,
                by=request.state.token_name,
                actor=acting(request),
                reason=data.reason,
                confirmed=data.confirm,
            )
        except AskingError as wrong:
            raise invalid(wrong.field, str(wrong)) from wrong
        except NotPossibleError as wrong:
            raise NotNowError(str(wrong)) from wrong
        return BulkAnswer(preview=None, begun=_status(begun))

    @get(summary="List bulk actions", operation_id="listBulkActions", responses=EVERYWHERE)
    async def list_all(
        self,
        limit: Annotated[
            int, query("Most of them", DEFAULT_PAGE, ge=1, le=LARGEST_PAGE)
        ] = DEFAULT_PAGE,
    ) -> list[BulkStatus]:
        """Those asked for last first."""
        return [_status(bulk) for bulk in await rows.list_newest(running_pool(), limit=limit)]

    @get(
        "/{action_id:uuid}",
        summary="How far a bulk action is",
        operation_id="getBulkAction",
        responses=EVERYWHERE | NOT_FOUND,
    )
    async def show(self, action_id: UUID) -> BulkStatus:
        """One of them."""
        return await _read(action_id)

    @get(
        "/{action_id:uuid}/left-out",
        summary="The emails to which it was not done",
        operation_id="listLeftOut",
        responses=EVERYWHERE | NOT_FOUND,
    )
    async def left_out(self, action_id: UUID) -> list[LeftOutEmail]:
        """The first thousand, for 30 days."""
        await _read(action_id)
        found = await rows.find_left_out(running_pool(), action_id, limit=MOST_LEFT_OUT)
        return [LeftOutEmail(id=one.email, why=one.why) for one in found]

    @post(
        "/{action_id:uuid}/stop",
        status_code=200,
        summary="Stop a bulk action",
        operation_id="stopBulkAction",
        responses=EVERYWHERE | NOT_FOUND | {409: problem_response("It does not run")},
    )
    async def stop(self, request: Request[Any, Any, Any], action_id: UUID) -> BulkStatus:
        """What is done stays done."""
        if not await rows.stop(
            running_pool(), action_id, by=request.state.token_name, actor=acting(request)
        ):
            raise NotNowError(f"it does not run: it is {(await _read(action_id)).state}")
        return await _read(action_id)

    @post(
        "/{action_id:uuid}/resume",
        status_code=200,
        summary="Let a stopped bulk action go on",
        operation_id="resumeBulkAction",
        responses=EVERYWHERE | NOT_FOUND | {409: problem_response("It is not stopped")},
    )
    async def resume(self, request: Request[Any, Any, Any], action_id: UUID) -> BulkStatus:
        """With the emails that were not looked at yet."""
        if not await rows.resume(running_pool(), action_id, actor=acting(request)):
            state = (await _read(action_id)).state
            raise NotNowError(
                f"it cannot go on: it is {state}, or was asked for {rows.KEPT_DAYS} days ago"
            )
        return await _read(action_id)


async def _read(action_id: UUID) -> BulkStatus:
    found = await rows.read(running_pool(), action_id)
    if found is None:
        raise NotFoundException(f"there is no bulk action {action_id}")
    return _status(found)


def _status(bulk: Bulk) -> BulkStatus:
    return BulkStatus(
        id=bulk.id,
        action=bulk.action,
        search=bulk.filter,
        reason=bulk.reason,
        asked_by=bulk.asked_by,
        asked_at=bulk.asked_at,
        state=bulk.state,
        total=bulk.total,
        done=bulk.done,
        skipped=bulk.skipped,
        failed=bulk.failed,
        reasons=dict(bulk.reasons),
        ended_at=bulk.ended_at,
    )
