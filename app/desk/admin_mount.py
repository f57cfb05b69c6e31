"""What stands around Piccolo Admin where it is mounted: bounds for what comes in, problem details
for what goes wrong, harmless text for spreadsheets.

Litestar's limit of a body ends at a mount, and Piccolo raises whatever a wrong input leads to.
"""

import logging
from collections.abc import Mapping
from json import JSONDecodeError

import asyncpg
import msgspec
import structlog
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.exceptions import (
    ClientException,
    HTTPException,
    NotFoundException,
    PermissionDeniedException,
)
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    Receive,
    Scope,
    Send,
    WebSocketReceiveMessage,
)
from piccolo_admin.endpoints import TableConfig

from app.database.errors import CANNOT_ASK
from app.desk.admin_lists import TABLES_PATH, bound_list
from app.desk.csv_export import harmless_in_spreadsheets, is_export
from app.desk.sign_in import database_is_away
from app.http.bodies import LARGEST_BODY, in_time
from app.http.host_names import host_name
from app.settings import get_settings

log = structlog.get_logger(__name__)

# Its page sends nothing else. What is nested, or is no text where a password belongs, brings
# Piccolo down.
FIELDS = msgspec.json.Decoder(dict[str, str | int | float | bool | None])
CREDENTIALS = msgspec.json.Decoder(dict[str, str])
CREDENTIAL_PATHS = ("/public/login/", "/api/change-password/")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")

# Piccolo's pages about its own API, to which nothing leads and which load from another host.
DOCS_PATHS = ("/public/docs/", "/api/docs/")

# What Piccolo raises for a value that its column cannot hold, for a filter on a JSON column, for
# text that no header holds, and for a form without a body.
WRONG_INPUT = (asyncpg.DataError, asyncpg.UndefinedFunctionError, UnicodeError, JSONDecodeError)


def guarded(application: ASGIApp, tables: Mapping[str, TableConfig]) -> ASGIApp:
    """Piccolo Admin, with bodies and lists within bounds, and problem details for exceptions.

    Args:
        tables: what it shows of each table, by the table's name.
    """
    # These log exceptions whose texts hold what was sent. What matters of them is told here.
    for name in ("piccolo_admin.endpoints", "piccolo_api.crud.exceptions"):
        logging.getLogger(name).disabled = True

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"].startswith(DOCS_PATHS):
            raise NotFoundException
        body = await _read_body(scope, receive)
        if body:
            _check_fields(scope["path"], body)
        _check_origin(scope)
        bound_list(scope, tables)
        if scope["path"].startswith(TABLES_PATH) and is_export(scope):
            send = harmless_in_spreadsheets(send)
        try:
            await application(scope, _replay(body, receive), send)
        except WRONG_INPUT as error:
            log.info("admin_refused", error=type(error).__name__)
            raise ClientException(
                "the request is empty or holds a value that is not possible"
            ) from error
        except CANNOT_ASK as error:
            # A query that is wrong comes here as well, so the log has the kind.
            log.error("admin_not_possible", error=type(error).__name__)
            raise database_is_away() from error

    return run


def _check_origin(scope: Scope) -> None:
    """Piccolo refuses what changes something behind https from a host that is not allowed, with a
    403 that does not say where hosts are allowed.

    Raises:
        PermissionDeniedException: it would.
    """
    if (
        scope["type"] != ScopeType.HTTP
        or scope["method"] in SAFE_METHODS
        or scope["scheme"] != "https"
    ):
        return
    headers = Headers.from_scope(scope)
    name = host_name(headers.get("origin") or headers.get("referer") or "")
    allowed = get_settings().allowed_hosts
    if name is None or name not in allowed:
        mend = f"add {name} there" if name else "the browser has to send Origin or Referer"
        is_set = "does not name this host" if allowed else "is not set, and https needs it"
        raise PermissionDeniedException(f"MAILROOM_ALLOWED_HOSTS {is_set}: {mend}")


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    if int(Headers.from_scope(scope).get("content-length", "0")) > LARGEST_BODY:
        raise _too_large()
    body = bytearray()
    async with in_time():
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientException("the connection ended before the body did")
            body += message["body"]
            if len(body) > LARGEST_BODY:
                raise _too_large()
            if not message.get("more_body", False):
                return bytes(body)


def _too_large() -> HTTPException:
    return HTTPException(status_code=413, detail=f"the body is larger than {LARGEST_BODY} bytes")


def _check_fields(path: str, body: bytes) -> None:
    try:
        (CREDENTIALS if path in CREDENTIAL_PATHS else FIELDS).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientException(
            "the body has to be a JSON object of plain values, as the page sends it"
        ) from error


def _replay(body: bytes, receive: Receive) -> Receive:
    """What was read already, and then what follows it: the end of the connection."""
    read: list[HTTPReceiveMessage] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> HTTPReceiveMessage | WebSocketReceiveMessage:
        return read.pop() if read else await receive()

    return replayed
