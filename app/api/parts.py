"""What the APIs of emails and of the quarantine share: how parameters are told of, and answers to
what cannot be done."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from litestar import Controller, Request
from litestar.exceptions import ValidationException
from litestar.openapi.spec import Example
from litestar.params import Parameter
from litestar.response import Response

from app.api.job_schemas import EXAMPLE_ID
from app.api.search import Cursor
from app.api.tokens import ANSWERS_OF_THE_GUARD
from app.database.errors import DATABASE_AWAY
from app.http.bodies import RETRY_AFTER_SECONDS
from app.http.problems import problem, problem_response
from app.http.strict import StrictRequest

log = structlog.get_logger(__name__)

EXAMPLE_CURSOR = Cursor(datetime(2026, 11, 23, 14, 5, 9, tzinfo=UTC), UUID(EXAMPLE_ID))

EVERYWHERE = {
    400: problem_response("Parameters or fields are wrong: each is named"),
    **ANSWERS_OF_THE_GUARD,
    403: problem_response("The token has not the scope that this needs"),
}


def query(description: str, example: object, **bounds: Any) -> Any:
    """A parameter of the query, as the documentation tells it."""
    return Parameter(description=description, examples=[Example(value=example)], **bounds)


def database_away(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The answer while the database cannot be asked."""
    log.warning("database_away", doing="jobs_api", error=type(error).__name__)
    return problem(
        503, "the database is away: ask again", headers={"Retry-After": RETRY_AFTER_SECONDS}
    )


class ApiController(Controller):
    """What programs call with a token; a guard of each says which."""

    request_class = StrictRequest
    security = [{"token": []}]  # noqa: RUF012 - Litestar declares it so
    exception_handlers = dict.fromkeys(DATABASE_AWAY, database_away)


def invalid(field: str, message: str) -> ValidationException:
    """What is wrong with one parameter or field."""
    return ValidationException(f"{field}: {message}", extra=[{"key": field, "message": message}])
