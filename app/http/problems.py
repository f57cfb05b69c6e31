"""Errors as HTTP clients see them: problem details, RFC 9457."""

from http import HTTPStatus
from typing import Annotated, Any

import attrs
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import Parameter

from app.i18n.languages import ENGLISH, spoken
from app.i18n.texts import gettext as _
from app.settings import get_settings
from app.telemetry.request_id import TOLD_KEY

log = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"
# How Litestar says it of routes and of static files.
NOTHING_THERE = (HTTPStatus.NOT_FOUND.phrase, "no file or directory match")


def _about(description: str, example: object) -> Any:
    return Parameter(description=description, examples=[Example(value=example)])


@attrs.frozen
class ProblemDetails:
    """What went wrong with a request (RFC 9457)."""

    type: Annotated[str, _about("Kind of problem; `about:blank`: see `status`", "about:blank")]
    title: Annotated[str, _about("The HTTP status in words", "Bad Request")]
    status: Annotated[int, _about("The HTTP status", 400)]
    detail: Annotated[
        str,
        _about(
            "What is wrong and how to mend it",
            "from_email: is missing: it has to be sent with a value",
        ),
    ]
    errors: Annotated[
        list[dict[str, str]] | None,
        _about(
            "Each wrong field of the payload: `field` and `message`",
            [{"field": "from_email", "message": "is missing: it has to be sent with a value"}],
        ),
    ] = None


def problem_content(status: int, detail: str, **members: Any) -> bytes:
    """Problem details as JSON. `detail` says what is wrong and how to mend it; `members` are
    extensions such as the list of wrong fields."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return msgspec.json.encode(content)


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> Response[bytes]:
    """A problem details response of `problem_content`."""
    content = problem_content(status, detail, **members)
    return Response(content, status_code=status, media_type=PROBLEM_JSON, headers=headers)


def problem_response(description: str) -> ResponseSpec:
    """Problem details as an answer that the API's description lists."""
    return ResponseSpec(
        ProblemDetails, generate_examples=False, description=description, media_type=PROBLEM_JSON
    )


def http_exception_to_problem(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[bytes]:
    """What Litestar itself refuses: unknown paths, wrong methods, wrong parameters. What an
    exception of ours has as `extra` are members of its problem details."""
    if error.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        # Litestar raises it for an answer that cannot be written.
        return any_exception_to_problem(request, error)
    detail = error.detail
    wrong = _wrong_fields(error)
    if wrong:
        said = "; ".join(f"{field['field']}: {field['message']}" for field in wrong)
        return problem(error.status_code, said, headers=error.headers, errors=wrong)
    headers = error.headers
    # Litestar's own words for these say no more than the title.
    if isinstance(error, NotFoundException) and detail.startswith(NOTHING_THERE):
        schema = f"{get_settings().root_path}/schema/openapi.json"
        detail = _("nothing is at this path: %(schema)s lists what there is", schema=schema)
    elif isinstance(error, RequestEntityTooLarge):
        most = request.route_handler.resolve_request_max_body_size()
        detail = _("the body is larger than %(most)s bytes", most=most)
    elif isinstance(error, MethodNotAllowedException):
        allowed = (headers or {}).get("allow", "")
        # Litestar knows nothing of `app.http.head_requests`.
        if "HEAD" not in allowed:
            allowed = allowed.replace("GET", "GET, HEAD")
        headers = {**(headers or {}), "allow": allowed}
        detail = _(
            "%(method)s is not possible at this path: use one of %(allowed)s",
            method=request.method,
            allowed=allowed,
        )
    members = error.extra if isinstance(error.extra, dict) else {}
    return problem(error.status_code, detail, headers=headers, **members)


def _wrong_fields(error: HTTPException) -> list[dict[str, str]]:
    if not isinstance(error, ValidationException) or not isinstance(error.extra, list):
        return []
    return [
        {"field": str(item.get("key") or "body"), "message": _said(str(item["message"]))}
        for item in error.extra
        if isinstance(item, dict) and "message" in item
    ]


def _said(message: str) -> str:
    """What is wrong with a field. The library knows English alone."""
    return message if spoken() == ENGLISH else _("its value is none that is possible here")


def any_exception_to_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A defect of ours: logged with its traceback, told without it."""
    log.error("unhandled_error", path=request.url.path, exc_info=error)
    request.scope["state"][TOLD_KEY] = True
    return problem(500, _("the server failed to answer this request; its log says why"))
