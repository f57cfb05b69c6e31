"""Waiting for a database that is away, instead of failing emails for it."""

import asyncio
import time
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
GIVE_UP_AFTER_SECONDS = 600.0


async def patiently(
    doing: str,
    work: Callable[[], Awaitable[T]],
    *,
    longest_pause: float = LONGEST_PAUSE_SECONDS,
) -> T:
    """Do `work`, again and again with growing pauses while the database is away.

    Args:
        longest_pause: in seconds; what has to be done before a lease ends cannot wait as long.

    Raises:
        Exception: what the work raised, if it is another error or came after a long time.
    """
    began = time.monotonic()
    pause = min(FIRST_PAUSE_SECONDS, longest_pause)
    is_told = False
    while True:
        try:
            return await work()
        except DATABASE_AWAY as error:
            if time.monotonic() - began > GIVE_UP_AFTER_SECONDS:
                raise
            if not is_told:
                log.warning("database_away", doing=doing, error=type(error).__name__)
                is_told = True
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest_pause)
