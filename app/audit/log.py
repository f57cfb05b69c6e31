"""The one way into the audit log. Who acts calls it in the transaction of the act where there is
one; an act of several transactions has an entry before the first."""

import contextlib
import json
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, TypeAlias

import asyncpg
import attrs

from app.audit.actors import Actor
from app.audit.acts import Act
from app.models.audit_entry import LONGEST_NAME, Result

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)
Database: TypeAlias = "Pool | Connection"

INSERT = """
INSERT INTO audit_entries (id, at, actor_kind, actor, user_id, door, address, act, object, result,
    changed, details, request_id)
SELECT gen_random_uuid(), now(), $1, $2, $3, $4, $5, $6, object, $8, $9, $10::jsonb, $11
FROM unnest($7::text[]) AS object
"""


@contextlib.asynccontextmanager
async def in_transaction(database: "Database") -> "AsyncIterator[Connection]":
    """A transaction for an act and its entry: both are there in the end, or neither."""
    if isinstance(database, asyncpg.Pool):
        async with database.acquire() as connection, connection.transaction():
            yield connection
    else:
        async with database.transaction():
            yield database


def result_of(is_done: object) -> Result:
    """What became of an act that changes something or finds nothing to change."""
    return Result.DONE if is_done else Result.NOTHING


async def write(
    database: "Database",
    actor: Actor,
    act: Act,
    on: Collection[object] = (),
    *,
    result: Result = Result.DONE,
    count: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write what somebody did: an entry for each thing that it was done to, or one.

    Args:
        on: ids or names, each of at most 255 characters; never an address or a name of a customer.
        count: how many were changed, where they are not named.
        details: what else is worth knowing, with no address, body or secret in it.
    """
    await database.execute(
        INSERT,
        actor.kind.value,
        actor.name,
        actor.user_id,
        actor.door.value,
        actor.address,
        act.value,
        [str(one)[:LONGEST_NAME] for one in on] or [None],
        result.value,
        count,
        None if details is None else json.dumps(details),
        actor.request_id,
    )


@attrs.define
class Steps:
    """How many were changed so far by an act of several transactions."""

    count: int = 0


@contextlib.asynccontextmanager
async def in_steps(
    database: "Database",
    actor: Actor,
    act: Act,
    on: Collection[object] = (),
    *,
    details: Mapping[str, Any] | None = None,
) -> AsyncIterator[Steps]:
    """An act of several transactions: an entry before the first of them, whatever becomes of it,
    and one with the count after the last."""
    await write(database, actor, act, on, result=Result.BEGUN, details=details)
    steps = Steps()
    yield steps
    done = result_of(steps.count)
    await write(database, actor, act, on, result=done, count=steps.count, details=details)
