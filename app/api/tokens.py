"""Bearer tokens (RFC 6750): making, revoking, and the guard of the routes they open.

The token of MAILROOM_API_TOKEN opens everything; the others are in the database, hashed.
"""

import asyncio
import hashlib
import hmac
import math
import re
import secrets
import time
from datetime import datetime
from typing import Any

import asyncpg
import attrs
import structlog
from litestar.connection import ASGIConnection
from litestar.exceptions import (
    NotAuthorizedException,
    PermissionDeniedException,
    ServiceUnavailableException,
)
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from app.audit.actors import Actor
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.errors import MailroomError
from app.http.bodies import RETRY_AFTER_SECONDS
from app.http.problems import problem_response
from app.jobs.transitions.common import Database
from app.models.api_token import Scope
from app.settings import get_settings

log = structlog.get_logger(__name__)

# So that people and scanners of leaked secrets know one by its looks.
PREFIX = "mailroom_"
RANDOM_BYTES = 32
NAME_OF_THE_SETTING = "MAILROOM_API_TOKEN"
# A name stands in lines of `token list` and of stories. The length is that of its column.
NAME = re.compile(r"[A-Za-z0-9_.@-]{1,100}")

LOOK_UP_SECONDS = 2.0
# An outage of the database is watched by the metrics of the web processes. They hold nothing of an
# email, so that they are shown for as long to a token which was revoked where we cannot see it is
# the lesser evil.
REMEMBERED_SECONDS = 3600.0


ANSWERS_OF_THE_GUARD = {
    401: problem_response("The token is missing, wrong or revoked"),
    503: problem_response("The database is away: ask again after Retry-After seconds"),
}

CREATE = """
INSERT INTO api_tokens (id, name, token_hash, scope, created_at)
VALUES (gen_random_uuid(), $1, $2, $3, now())
"""
REVOKE = "UPDATE api_tokens SET revoked_at = now() WHERE name = $1 AND revoked_at IS NULL"
LIST = """
SELECT name, scope, created_at, last_used_at, revoked_at FROM api_tokens ORDER BY created_at
"""
FIND = """
WITH found AS (
    SELECT id, name, scope, last_used_at FROM api_tokens
    WHERE token_hash = $1 AND revoked_at IS NULL
), touched AS (
    UPDATE api_tokens SET last_used_at = now() FROM found
    WHERE api_tokens.id = found.id
    AND (found.last_used_at IS NULL OR found.last_used_at < now() - interval '1 minute')
)
SELECT name, scope FROM found
"""


class TokenError(MailroomError):
    """A token cannot be made or revoked."""


@attrs.frozen
class Token:
    """What is known of a token."""

    name: str
    scope: str
    """A `Scope`, or one of a newer version."""
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


async def create_token(database: Database, name: str, scope: Scope) -> str:
    """Make a token. It is told this once; the database keeps its hash.

    Raises:
        TokenError: the name cannot be taken or was given before.
    """
    if not NAME.fullmatch(name) or name.upper() == NAME_OF_THE_SETTING:
        raise TokenError(
            f"a token cannot have the name {name[:100]!r}: take 1 to 100 letters, digits and "
            f"`_.@-`, and not {NAME_OF_THE_SETTING}, which is the name of the setting's token"
        )
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    try:
        await database.execute(CREATE, name, _hash(token), scope.value)
    except asyncpg.UniqueViolationError as error:
        raise TokenError(
            f"there is or was a token named {name}: take another name, so that who did what stays "
            "clear"
        ) from error
    return token


async def revoke_token(database: Database, name: str) -> None:
    """Make a token useless from now on.

    Raises:
        TokenError: there is no such token, or it was revoked before.
    """
    if await database.execute(REVOKE, name) != "UPDATE 1":
        raise TokenError(f"no token named {name} is valid: see `mailroom token list`")


async def list_tokens(database: Database) -> list[Token]:
    """Every token that was ever made, the oldest first."""
    return [Token(**row) for row in await database.fetch(LIST)]


@attrs.frozen
class _Granted:
    """What a token opens."""

    name: str
    scope: str
    looked_up_at: float = math.inf


# By the token's hash, those that this process looked up.
_remembered: dict[str, _Granted] = {}


def acting(request: ASGIConnection[Any, Any, Any, Any]) -> Actor:
    """Whose token a request was let in with."""
    return Actor.token(request.state.token_name, request.scope)


def needs(scope: Scope, *, remembered_seconds: float = 0.0) -> Guard:
    """A guard that lets requests through whose token has the scope.

    Args:
        scope: what the token has to be good for.
        remembered_seconds: how long a token that was valid is let through while the database,
            which would know that it was revoked, is away.
    """

    async def guard(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise NotAuthorizedException(
                "a token is missing: send `Authorization: Bearer ...`; `mailroom token create` "
                "makes one",
                headers={"WWW-Authenticate": "Bearer"},
            )
        granted = await _find(token.strip(), remembered_seconds)
        if granted is None:
            raise NotAuthorizedException(
                "the token is wrong or was revoked",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        if not scope.is_included_in(granted.scope):
            raise PermissionDeniedException(
                f"the token has the scope `{granted.scope}`: this needs one with `{scope}`",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
            )
        connection.state.token_name = granted.name

    return guard


async def _find(token: str, remembered_seconds: float) -> _Granted | None:
    given, configured = _hash(token), _hash(get_settings().api_token)
    if get_settings().api_token and hmac.compare_digest(given, configured):
        return _Granted(NAME_OF_THE_SETTING, Scope.OPERATE)
    try:
        row = await _look_up(given)
    except CANNOT_ASK as error:
        granted = _remembered.get(given)
        if granted and time.monotonic() - granted.looked_up_at < remembered_seconds:
            return granted
        log.warning("token_not_looked_up", error=type(error).__name__)
        raise ServiceUnavailableException(
            "the database is away, which knows the tokens: ask again",
            headers={"Retry-After": RETRY_AFTER_SECONDS},
        ) from error
    if row is None:
        _remembered.pop(given, None)
        return None
    _remembered[given] = _Granted(row["name"], row["scope"], time.monotonic())
    return _remembered[given]


async def _look_up(token_hash: str) -> "asyncpg.Record | None":
    task = asyncio.create_task(running_pool().fetchrow(FIND, token_hash))
    # Not `asyncio.timeout`: a cancelled query waits for an answer of the server, too.
    await asyncio.wait({task}, timeout=LOOK_UP_SECONDS)
    if not task.done():
        task.cancel()
        raise TimeoutError
    return task.result()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
