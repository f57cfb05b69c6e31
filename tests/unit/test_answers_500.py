"""Every answer 500 has its line in the log, with the request's id, whoever gave it."""

from typing import Any

import pytest
import structlog
from litestar import Litestar, asgi, get
from litestar.exceptions import HTTPException
from litestar.testing import TestClient
from litestar.types import Receive, Scope, Send
from structlog.testing import LogCapture

from app.http.problems import any_exception_to_problem, http_exception_to_problem
from app.telemetry.request_id import RequestIds


@get("/raises", sync_to_thread=False)
def raises() -> None:
    raise RuntimeError("a defect")


@get("/unwritable", sync_to_thread=False)
def unwritable() -> dict[str, str]:
    # UTF-8 carries no half of a pair, so this answer cannot be written.
    return {"alt": "photo \ud83d"}


@get("/away", sync_to_thread=False)
def away() -> None:
    raise HTTPException(status_code=503, detail="the database is away")


@asgi("/mounted", is_mount=True, copy_scope=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
def told() -> Any:
    """The lines of the log with all that is bound to them."""
    capture = LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(processors=before)


@pytest.mark.parametrize("path", ["/raises", "/unwritable", "/mounted"])
def test_an_answer_500_is_told_once_with_the_id_of_its_request(path: str, told: Any) -> None:
    app = Litestar(
        [raises, unwritable, mounted, away],
        middleware=[RequestIds],
        exception_handlers={
            HTTPException: http_exception_to_problem,
            Exception: any_exception_to_problem,
        },
        logging_config=None,
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/away").status_code == 503
        assert told == []
        answer = client.get(path)
    assert answer.status_code == 500
    (line,) = told
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["path"] == path
