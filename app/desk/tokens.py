"""Bearer tokens (RFC 6750): making, revoking, and the guard of the routes they open.

The token of MAILROOM_API_TOKEN opens everything; the others are in the database, hashed.
"""

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Any

import asyncpg
import attrs
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Guard

from app.database import running_pool
from app.errors import MailroomError
from app.jobs.transitions import Database
from app.models.api_token import Scope
from app.problems import PROBLEM_JSON, ProblemDetails
from app.settings import get_settings

# So that people and scanners of leaked secrets know one by its looks.
PREFIX = "mailroom_"
RANDOM_BYTES = 32
NAME_OF_THE_SETTING = "MAILROOM_API_TOKEN"

UNAUTHORIZED = {
    401: ResponseSpec(
        ProblemDetails,
        generate_examples=False,
        description="The token is missing, wrong or revoked",
        media_type=PROBLEM_JSON,
    )
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
    scope: Scope
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


async def create_token(database: Database, name: str, scope: Scope) -> str:
    """Make a token. It is told this once; the database keeps its hash.

    Raises:
        TokenError: the name was given before.
    """
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
    return [Token(**{**row, "scope": Scope(row["scope"])}) for row in await database.fetch(LIST)]


def needs(scope: Scope) -> Guard:
    """A guard that lets requests through whose token has the scope."""

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
        found = await _find(token.strip())
        if found is None:
            raise NotAuthorizedException(
                "the token is wrong or was revoked",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        name, granted = found
        if scope is Scope.OPERATE and granted is not Scope.OPERATE:
            raise PermissionDeniedException(
                "the token may only read: this needs one with the scope `operate`",
                headers={"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="operate"'},
            )
        connection.state.token_name = name

    return guard


async def _find(token: str) -> tuple[str, Scope] | None:
    given, configured = _hash(token), _hash(get_settings().api_token)
    if get_settings().api_token and hmac.compare_digest(given, configured):
        return NAME_OF_THE_SETTING, Scope.OPERATE
    row = await running_pool().fetchrow(FIND, given)
    return (row["name"], Scope(row["scope"])) if row is not None else None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
