"""What every answer tells browsers: run nothing of strangers, show nothing in frames."""

from collections.abc import Awaitable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import Settings

# Whatever is not named here is forbidden: inline scripts, frames, plug-ins, other hosts.
OWN_FILES_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Piccolo Admin and Swagger UI add style elements, and draw arrows from `data:` images.
LIBRARIES = OWN_FILES_ONLY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)

POLICY = b"content-security-policy"
ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
COMMON = [*ALWAYS, (b"x-frame-options", b"DENY")]
FOR_OURS = [*COMMON, (POLICY, OWN_FILES_ONLY.encode())]
FOR_LIBRARIES = [*COMMON, (POLICY, LIBRARIES.encode())]
HSTS = (b"strict-transport-security", b"max-age=31536000")


class SecurityHeaders:
    """An ASGI middleware that adds them to all answers: errors and the admin's too. One that has a
    policy of its own, which is stricter about what it holds, says itself who may frame it.

    Args:
        library_paths: where the pages of libraries begin, which need more than ours.
    """

    def __init__(self, app: ASGIApp, settings: Settings, library_paths: tuple[str, ...]) -> None:
        self._app = app
        self._library_paths = tuple(path.encode() for path in library_paths)
        self._hsts = [HSTS] if settings.is_production else []

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """As an ASGI application."""
        if scope["type"] != ScopeType.HTTP:
            return self._app(scope, receive, send)

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                # A mounted application's `path` is that below its mount by now.
                is_library = scope["raw_path"].startswith(self._library_paths)
                headers = FOR_LIBRARIES if is_library else FOR_OURS
                if any(name == POLICY for name, _ in message.get("headers", ())):
                    headers = ALWAYS
                hsts = self._hsts if scope["scheme"] == "https" else ()
                message["headers"] = [*message.get("headers", ()), *headers, *hsts]
            return send(message)

        return self._app(scope, receive, send_with_headers)
