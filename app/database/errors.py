"""What asking the database may end in: the one place that says which errors mean what.

The codes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import asyncpg

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
    asyncpg.IdleInTransactionSessionTimeoutError,
    # After a failover, for a while; after a password was changed, until we have it.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
)
"""The database is away, restarting, read-only, out of connections or of disk, or wants the
transaction repeated: waiting helps, and nothing that was asked is at fault."""

CANNOT_ASK = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Whatever asking may end in, a table that is missing or may not be read included: for those who
say so and go on without an answer."""


class CannotConnectError(asyncpg.PostgresConnectionError):
    """The server took no connection, for a reason that no statement can be at fault for: it takes
    none for this database now, or knows it no longer."""


# 08: the connection broke. 57P: the server ends, crashed, starts or dropped the database.
_SPENT_CLASSES = ("08", "57P")
# A server, or a session of it, that cannot write any longer; transactions that took too long.
_SPENT = frozenset({"25006", "25P03", "25P04"})


def is_spent(sqlstate: str | None) -> bool:
    """Whether a connection that met this error is of no further use, though it may still answer.

    After a failover old sessions stay read-only for as long as they live, while new ones can write.
    """
    return sqlstate is not None and (sqlstate in _SPENT or sqlstate.startswith(_SPENT_CLASSES))
