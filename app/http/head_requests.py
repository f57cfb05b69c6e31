"""HEAD wherever there is GET (RFC 9110, section 9.3.2): probes of load balancers ask so."""

from collections.abc import Awaitable
from typing import cast

from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    Message,
    Receive,
    Scope,
    Send,
    WebSocketReceiveMessage,
)


class HeadRequests:
    """An ASGI middleware: HEAD is answered as GET is, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """As an ASGI application; it adds no coroutine of its own, since email comes this way."""
        if scope["type"] != ScopeType.HTTP or scope["method"] != "HEAD":
            return self._app(scope, receive, send)
        has_begun = False

        async def send_head(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                message["body"] = b""
                await send(message)

        async def receive_until_then() -> HTTPReceiveMessage | WebSocketReceiveMessage:
            # What streams ends then: nobody reads it.
            return {"type": "http.disconnect"} if has_begun else await receive()

        # In a scope of its own, because the server goes by the method of the one that it made.
        return self._app(cast(Scope, {**scope, "method": "GET"}), receive_until_then, send_head)
