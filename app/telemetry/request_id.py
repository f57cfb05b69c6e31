"""One id for each request: in its answer, in its log lines, and, where it brings an email, as the
email's id, which the message to the broker and the handler's log lines carry."""

import os
import time
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
STATE_KEY = "request_id"
TOLD_KEY = "is_error_told"
"""Set where an answer 500 has its line in the log already."""

log = structlog.get_logger(__name__)


def uuid7() -> UUID:
    """A UUID that sorts by time (RFC 9562, version 7): the primary key's index stays dense."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF000 << 64) | (0x7000 << 64)
    value = value & ~(0xC000 << 48) | (0x8000 << 48)
    return UUID(int=value)


class RequestIds:
    """An ASGI middleware that gives each request its id. What a client sends under that name is not
    heeded."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """As an ASGI application; it adds no coroutine of its own, since email comes this way."""
        if scope["type"] != ScopeType.HTTP:
            return self._app(scope, receive, send)
        request_id = uuid7()
        text = str(request_id)
        header = (HEADER, text.encode())
        state: dict[str, Any] = scope["state"]
        state[STATE_KEY] = request_id
        structlog.contextvars.bind_contextvars(request_id=text)

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
                # What is mounted answers for itself.
                if message["status"] == HTTPStatus.INTERNAL_SERVER_ERROR and TOLD_KEY not in state:
                    log.error("answered_500", path=scope["raw_path"].decode("latin-1"))
            return send(message)

        return self._app(scope, receive, send_with_id)
