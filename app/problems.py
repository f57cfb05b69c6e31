"""Errors as HTTP clients see them: problem details, RFC 9457."""

from http import HTTPStatus
from typing import Annotated, Any

import attrs
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.params import Parameter

log = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"


@attrs.frozen
class ProblemDetails:
    """What went wrong with a request (RFC 9457)."""

    type: Annotated[str, Parameter(description="Kind of problem; `about:blank`: see `status`")]
    title: Annotated[str, Parameter(description="The HTTP status in words")]
    status: Annotated[int, Parameter(description="The HTTP status")]
    detail: Annotated[str, Parameter(description="What is wrong and how to mend it")]
    errors: Annotated[
        list[dict[str, str]] | None,
        Parameter(description="Each wrong field of the payload: `field` and `message`"),
    ] = None


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> Response[bytes]:
    """A problem details response. `detail` says what is wrong and how to mend it; `members` are
    extensions such as the list of wrong fields."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(
        msgspec.json.encode(content), status_code=status, media_type=PROBLEM_JSON, headers=headers
    )


def http_exception_to_problem(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[bytes]:
    """What Litestar itself refuses: unknown paths, wrong methods, bodies that are too large."""
    return problem(error.status_code, error.detail, headers=error.headers)


def any_exception_to_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A defect of ours: logged with its traceback, told without it."""
    log.error("unhandled_error", path=request.url.path, exc_info=error)
    return problem(500, "the server failed to answer this request; its log says why")
