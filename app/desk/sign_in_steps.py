"""Sign-ins that wait for their next step: kept in the database, so that any web process goes on
with one, and found by a cookie of the browser that began it."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs

from app.audit.log import Database
from app.models.sign_in_step import Purpose

BEGIN = """
INSERT INTO sign_in_steps (token_hash, purpose, user_id, details, expires_at)
VALUES ($1, $2, $3, $4::jsonb, now() + $5::interval)
"""
LOOK = """
SELECT user_id, details FROM sign_in_steps
WHERE token_hash = $1 AND purpose = $2 AND expires_at > now()
"""
# Of two who come with the same token, one finds it.
TAKE = """
DELETE FROM sign_in_steps WHERE token_hash = $1 AND purpose = $2 AND expires_at > now()
RETURNING user_id, details
"""
FORGET = "DELETE FROM sign_in_steps WHERE expires_at < now()"


@attrs.frozen
class Step:
    """What is known of a sign-in under way."""

    user_id: int | None
    details: Mapping[str, Any]


async def begin_step(
    database: Database,
    purpose: Purpose,
    span: timedelta,
    details: Mapping[str, Any],
    *,
    user_id: int | None = None,
) -> str:
    """Keep a step for a while. Returns the token by which it is found."""
    token = secrets.token_urlsafe(32)
    told = json.dumps(details)
    await database.execute(BEGIN, _hash(token), purpose.value, user_id, told, span)
    return token


async def look_at_step(database: Database, purpose: Purpose, token: str) -> Step | None:
    """The step of a token; None where it took too long, or there was none."""
    return _step(await database.fetchrow(LOOK, _hash(token), purpose.value))


async def take_step(database: Database, purpose: Purpose, token: str) -> Step | None:
    """The step of a token, which serves no second time."""
    return _step(await database.fetchrow(TAKE, _hash(token), purpose.value))


async def forget_old_steps(database: Database) -> None:
    """Delete what took too long."""
    await database.execute(FORGET)


def _step(row: Any) -> Step | None:
    return None if row is None else Step(row["user_id"], json.loads(row["details"]))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
