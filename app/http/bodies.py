"""The bytes of request bodies that this process holds: one budget for all routes.

Whoever comes may send bytes, and they are held until the request is answered. So no route reads a
body but through `BoundedBodies`, and small emails find room whatever large bodies are held.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from litestar.enums import ScopeType
from litestar.exceptions import ClientException, HTTPException, ServiceUnavailableException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    Receive,
    Scope,
    Send,
    WebSocketReceiveMessage,
)

KIB = 1024

LARGEST_BODY = 64 * KIB
"""Bytes. The largest body of all routes but the webhook: a login, a form, a request of the API."""

BODY_SECONDS = 30.0
"""Time in which the body of a request has to come."""

# Zendesk repeats a 503 only if its Retry-After is short.
RETRY_AFTER_SECONDS = "5"

# What a body of some size may have of the budget. The last quarter is for those that fit into 64
# KiB, the last eighth for those of 2 KiB: as many as there are connections have room in it.
SMALL, TINY = LARGEST_BODY, 2 * KIB
SHARE_OF_LARGE, SHARE_OF_SMALL = 3 / 4, 7 / 8


class TooMuchHeldError(ServiceUnavailableException):
    """This process holds as many bytes of bodies as it may."""

    def __init__(self) -> None:
        super().__init__(
            "too many bytes are being received: send the request again",
            headers={"Retry-After": RETRY_AFTER_SECONDS},
        )


class BodyBudget:
    """Bytes that may be held at once.

    Args:
        most_bytes: all together.
        largest_body: a single body of this size has to fit, so there is more where it needs that.
    """

    def __init__(self, most_bytes: int, *, largest_body: int = 0) -> None:
        self._most = max(most_bytes, int(largest_body / SHARE_OF_LARGE) + 1)
        self._held = 0

    def take(self, size: int, *, before: int) -> None:
        """Hold bytes of a body, of which so many are held already; `give_back` them later.

        Raises:
            TooMuchHeldError: there is no room for them.
        """
        length = before + size
        most = self._most
        if length > TINY:
            most = int(most * (SHARE_OF_SMALL if length <= SMALL else SHARE_OF_LARGE))
        if self._held + size > most:
            raise TooMuchHeldError
        self._held += size

    def give_back(self, size: int) -> None:
        """Undo `take`."""
        self._held -= size


class BoundedBodies:
    """An ASGI middleware: bodies are read within the budget, and given back with the answer."""

    def __init__(self, app: ASGIApp, budget: BodyBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        budget = self._budget
        held = 0
        is_whole = scope["method"] in ("GET", "HEAD")

        async def counted() -> HTTPReceiveMessage | WebSocketReceiveMessage:
            nonlocal held, is_whole
            message = await receive()
            if message["type"] == "http.request":
                if size := len(message["body"]):
                    budget.take(size, before=held)
                    held += size
                is_whole = is_whole or not message.get("more_body", False)
            elif not is_whole:
                # Litestar would take it for a defect of ours.
                raise ClientException("the connection ended before the body did")
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            budget.give_back(held)


async def read_body(scope: Scope, receive: Receive, *, most_bytes: int) -> bytes:
    """The body of a request, as `Request.body` reads it; email comes this way, and this is shorter.

    Raises:
        RequestEntityTooLarge: it is larger, or says that it will be.
    """
    for name, value in scope["headers"]:
        # The server has refused what is no number.
        if name == b"content-length" and int(value) > most_bytes:
            raise RequestEntityTooLarge
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientException("the connection ended before the body did")
        parts.append(message["body"])
        size += len(message["body"])
        if size > most_bytes:
            raise RequestEntityTooLarge
        if not message.get("more_body", False):
            return b"".join(parts)


@contextlib.asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """For whoever reads a body without a deadline of its own.

    Raises:
        HTTPException: it did not come in time.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError as error:
        detail = f"the body did not come within {BODY_SECONDS:g} seconds: send it again"
        raise HTTPException(status_code=408, detail=detail) from error
