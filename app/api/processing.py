"""`/api/v1/processing`: whether emails are processed, and pausing that."""

from datetime import datetime
from typing import Annotated, Any

import attrs
from litestar import Request, get, post
from litestar.exceptions import HTTPException

from app.api.job_schemas import about
from app.api.parts import EVERYWHERE, ApiController, invalid
from app.api.tokens import acting, needs
from app.audit.acts import Act
from app.audit.log import in_transaction, write
from app.database.engine import running_pool
from app.http.problems import problem_response
from app.http.strict import refuse_unknown_parameters
from app.jobs import pausing
from app.jobs.pausing import Pause, PausedAlreadyError, PauseError
from app.models.api_token import Scope


@attrs.frozen(kw_only=True)
class PauseRequest:
    """Why processing is to be paused."""

    reason: Annotated[str, about("For those who see that nothing is processed", "CRM moves")]


@attrs.frozen(kw_only=True)
class Processing:
    """Whether emails are processed."""

    is_paused: bool
    since: Annotated[datetime | None, about("When it was paused")] = None
    by: Annotated[str | None, about("The person or token who paused it", "olga")] = None
    reason: Annotated[str | None, about("Why", "CRM moves")] = None


class ProcessingController(ApiController):
    """Processing as a whole. Email is accepted and stored whether it is paused or not."""

    path = "/api/v1/processing"
    tags = ["Processing"]  # noqa: RUF012 - Litestar declares it so
    guards = [refuse_unknown_parameters]  # noqa: RUF012

    @get(
        summary="Whether emails are processed",
        operation_id="getProcessing",
        guards=[needs(Scope.READ)],
        responses=EVERYWHERE,
    )
    async def get_processing(self) -> Processing:
        """With who paused it, when and why."""
        return _told(await pausing.find(running_pool()))

    @post(
        "/pause",
        summary="Pause processing",
        operation_id="pauseProcessing",
        guards=[needs(Scope.OPERATE)],
        status_code=200,
        responses=EVERYWHERE | {409: problem_response("It is paused already")},
    )
    async def pause(self, request: Request[Any, Any, Any], data: PauseRequest) -> Processing:
        """No worker claims an email from now on; what runs ends. Email is accepted and waits."""
        try:
            async with in_transaction(running_pool()) as connection:
                begun = await pausing.pause(
                    connection, by=request.state.token_name, reason=data.reason
                )
                await write(connection, acting(request), Act.PROCESSING_PAUSE)
            return _told(begun)
        except PausedAlreadyError as error:
            raise HTTPException(status_code=409, detail=str(error)) from error
        except PauseError as error:
            raise invalid("reason", str(error)) from error

    @post(
        "/resume",
        summary="Resume processing",
        operation_id="resumeProcessing",
        guards=[needs(Scope.OPERATE)],
        status_code=200,
        responses=EVERYWHERE | {409: problem_response("It is not paused")},
    )
    async def resume(self, request: Request[Any, Any, Any]) -> Processing:
        """Emails are claimed again, those that waited first."""
        try:
            async with in_transaction(running_pool()) as connection:
                await pausing.resume(connection)
                await write(connection, acting(request), Act.PROCESSING_RESUME)
        except PauseError as error:
            raise HTTPException(status_code=409, detail=str(error)) from error
        return _told(None)


def _told(pause: Pause | None) -> Processing:
    if pause is None:
        return Processing(is_paused=False)
    return Processing(is_paused=True, since=pause.since, by=pause.who, reason=pause.reason)
