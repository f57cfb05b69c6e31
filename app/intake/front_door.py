"""What happens to a request before it is routed: a path prefix that the proxy left on it is
removed, and a webhook that goes to a wrong path is told.
"""

from collections.abc import Awaitable

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.intake.openapi import WEBHOOK_PATH
from app.intake.signature import SIGNATURE_HEADER
from app.settings import get_settings
from app.telemetry.logs import is_told
from app.telemetry.metrics import MISDIRECTED

log = structlog.get_logger(__name__)

LONGEST_PATH = 200
SIGNED = SIGNATURE_HEADER.encode()


class FrontDoor:
    """Stands before the router of one web application."""

    def __init__(self, router: ASGIApp) -> None:
        self._router = router
        self._prefix = get_settings().root_path
        self._misdirected = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """As an ASGI application."""
        if scope["type"] == ScopeType.HTTP:
            came_to = scope["path"]
            self._remove_prefix(scope)
            if _is_misdirected(scope):
                send = self._told(came_to, send)
        return self._router(scope, receive, send)

    def _remove_prefix(self, scope: Scope) -> None:
        """In the scope itself: what is done to the answer looks at its path, too."""
        path, prefix = scope["path"], self._prefix
        if not prefix or not (path == prefix or path.startswith(f"{prefix}/")):
            return
        scope["path"] = path.removeprefix(prefix) or "/"
        raw = scope.get("raw_path") or b""
        # The prefix has no letter that would have to be written in another way.
        scope["raw_path"] = raw.removeprefix(prefix.encode()) or b"/"

    def _told(self, path: str, send: Send) -> Send:
        """Tell of a signed webhook that is refused for its path; the 1st, 2nd, 4th, 8th ..."""

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                MISDIRECTED.inc()
                self._misdirected += 1
                if is_told(self._misdirected):
                    log.error(
                        "webhook_misdirected",
                        path=path[:LONGEST_PATH],
                        times=self._misdirected,
                        explanation=f"set the webhook's URL in Zendesk to this host and "
                        f"{self._prefix}{WEBHOOK_PATH}, or see what the proxy makes of the path",
                    )
            await send(message)

        return telling


def _is_misdirected(scope: Scope) -> bool:
    return scope["path"].rstrip("/") != WEBHOOK_PATH and any(
        name == SIGNED for name, _ in scope["headers"]
    )
