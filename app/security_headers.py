"""What every answer tells browsers: run nothing of strangers, show nothing in frames."""

from collections.abc import Awaitable, Callable

from litestar.types import Message, Scope

from app.settings import Settings

# Whatever is not named here is forbidden: inline scripts, frames, plug-ins, other hosts.
OWN_FILES_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Piccolo Admin and Swagger UI add style elements, and draw arrows from `data:` images.
LIBRARIES = OWN_FILES_ONLY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)

COMMON = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
]
HSTS = (b"strict-transport-security", b"max-age=31536000")


def add_security_headers(
    settings: Settings, library_paths: tuple[str, ...]
) -> Callable[[Message, Scope], Awaitable[None]]:
    """A `before_send` hook of Litestar, which sees all answers: errors and the admin's too.

    Args:
        library_paths: where the pages of libraries begin, which need more than ours.
    """
    own = [*COMMON, (b"content-security-policy", OWN_FILES_ONLY.encode())]
    libraries = [*COMMON, (b"content-security-policy", LIBRARIES.encode())]
    prefixes = tuple(path.encode() for path in library_paths)

    async def add(message: Message, scope: Scope) -> None:
        if message["type"] != "http.response.start":
            return
        # A mounted application's `path` is that below its mount by now.
        headers = libraries if scope["raw_path"].startswith(prefixes) else own
        if settings.is_production and scope["scheme"] == "https":
            headers = [*headers, HSTS]
        message["headers"] = [*message.get("headers", ()), *headers]

    return add
