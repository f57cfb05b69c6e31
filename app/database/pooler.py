"""Whether a pooler, such as PgBouncer, stands before the database, and of what kind it is."""

import enum
from collections.abc import Awaitable, Callable
from uuid import uuid4

from app.database.connections import Connect, Connection, PooledConnection

# Others use the pooler as well, and may get in between.
TRIES = 5
REMEMBERED = "SELECT current_setting('mailroom.session', true)"


class Pooler(enum.Enum):
    """What stands between us and the database."""

    NONE = "none"
    SESSIONS = "sessions"
    """It lends a server's connection until the client's ends."""
    TRANSACTIONS = "transactions"
    """It lends one for a transaction: there are no sessions."""


async def find_pooler(url: str) -> Pooler:
    """Tell by two connections, in a way that works through each kind of pooler.

    Raises:
        Exception: the database cannot be asked.
    """
    connect = Connect(url)
    first, second = await _open(connect), await _open(connect)
    try:
        # A pooler has a number of its own for each client.
        if await first.fetchval("SELECT pg_backend_pid()") == first.get_server_pid():
            return Pooler.NONE
        for _ in range(TRIES):
            if await _share_a_session(first, second):
                return Pooler.TRANSACTIONS
        return Pooler.SESSIONS
    finally:
        await first.close()
        await second.close()


async def _open(connect: Callable[..., Awaitable[Connection]]) -> Connection:
    return await connect(
        connection_class=PooledConnection, statement_cache_size=0, command_timeout=5.0
    )


async def _share_a_session(first: Connection, second: Connection) -> bool:
    token = uuid4().hex
    await first.execute(f"SELECT set_config('mailroom.session', '{token}', false)")
    async with second.transaction():
        # The second has a server's connection for itself now: that of the first, or another.
        if await second.fetchval(REMEMBERED) == token:
            return True
        remembered: str | None = await first.fetchval(REMEMBERED)
        return remembered != token
