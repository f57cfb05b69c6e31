"""Waiting for a database that is away, instead of failing emails for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

# The database is away, restarting, out of connections or of disk, or wants the transaction
# repeated: none of it is the email's fault.
DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # What asyncpg raises where the connection ends between two messages of its protocol.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    # After a failover, for a while; after a password was changed, until we have it.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
GIVE_UP_AFTER_TRIES = 120


async def patiently(doing: str, work: Callable[[], Awaitable[T]]) -> T:
    """Do `work`, again and again with growing pauses while the database is away.

    Raises:
        Exception: what the work raised, if it is another error or the last of many tries.
    """
    pause = FIRST_PAUSE_SECONDS
    for tries in range(1, GIVE_UP_AFTER_TRIES):
        try:
            return await work()
        except DATABASE_AWAY as error:
            if tries == 1:
                log.warning("database_away", doing=doing, error=type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
    return await work()
