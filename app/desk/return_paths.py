"""Where somebody goes after signing in: to a path of this very origin, whatever was asked for."""

from typing import Any
from urllib.parse import urlencode, urlsplit

from litestar import Request

from app.desk.addresses import SIGN_IN_PATH, address
from app.settings import get_settings

LONGEST = 2_000


def safe_path(text: str) -> str:
    """The path if it is one of ours, else that of the overview.

    Browsers take `//host`, `/\\host` and a slash with a tab behind it for another origin:
    https://url.spec.whatwg.org/#url-parsing
    """
    home = address("/")
    if len(text) > LONGEST or not text.startswith(home) or text[1:2] in ("/", "\\"):
        return home
    if "\\" in text or any(not "!" <= character <= "~" for character in text):
        return home
    try:
        parts = urlsplit(text)
    except ValueError:
        return home
    return home if parts.scheme or parts.netloc else text


def sign_in_address(request: "Request[Any, Any, Any] | None" = None) -> str:
    """Where one signs in, to come back to this page."""
    bare = address(SIGN_IN_PATH)
    if request is None or request.method != "GET":
        return bare
    prefix, path = get_settings().root_path, request.scope["path"]
    if prefix and path != prefix and not path.startswith(f"{prefix}/"):
        path = prefix + path
    query = request.scope["query_string"].decode("latin-1")
    back = safe_path(f"{path}?{query}" if query else path)
    return bare if back == address("/") else f"{bare}?{urlencode({'next': back})}"
