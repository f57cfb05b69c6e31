"""Running the migrations one at a time, and telling whether database and code fit together.

Piccolo runs migrations without a lock, so two `forwards` at once can deadlock or run one twice.
"""

import asyncio
import contextlib
import functools
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import attrs
import structlog
from piccolo.apps.migrations.commands.backwards import BackwardsMigrationManager
from piccolo.apps.migrations.commands.base import BaseMigrationManager
from piccolo.apps.migrations.commands.forwards import ForwardsMigrationManager, run_forwards

from app.database import DB
from app.errors import MailroomError
from app.piccolo_app import APP_CONFIG

log = structlog.get_logger(__name__)

# Any number serves, as long as nothing else in the database locks by it: "mailroom" in ASCII.
MIGRATION_LOCK_KEY = int.from_bytes(b"mailroom", "big")
LOCK_POLL_SECONDS = 0.2


Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


class MigrationError(MailroomError):
    """The migrations did not run to their end."""


@attrs.frozen
class SchemaState:
    """How the database's schema compares with the one this code was written for."""

    missing: tuple[str, ...]
    """Migrations that this code has and the database has not run: the database is older."""

    unknown: tuple[str, ...]
    """Migrations that the database has run and this code does not have: it is newer."""

    @property
    def verdict(self) -> str:
        """`current`, `older` or `newer`; older wins where both are true."""
        if self.missing:
            return "older"
        return "newer" if self.unknown else "current"

    @property
    def explanation(self) -> str:
        """One sentence for logs and people."""
        if self.missing:
            return (
                f"the database is older than the code (not yet run: {', '.join(self.missing)}): "
                "run `mailroom migrate`"
            )
        if self.unknown:
            return (
                f"the database is newer than the code (unknown: {', '.join(self.unknown)}): "
                "deploy the version of Mailroom that brought them"
            )
        return "the database fits the code"


@contextlib.asynccontextmanager
async def migration_lock() -> AsyncIterator[None]:
    """Hold the right to change the schema, across processes and machines.

    It polls: a session that waits inside `pg_advisory_xact_lock` holds a snapshot, and
    CREATE INDEX CONCURRENTLY waits for all snapshots, so the two would deadlock.
    """
    connection = await DB.get_new_connection()
    try:
        while True:
            # The lock of a transaction, because behind a pooler there is no session.
            async with connection.transaction():
                try_lock = "SELECT pg_try_advisory_xact_lock($1)"
                if await connection.fetchval(try_lock, MIGRATION_LOCK_KEY):
                    # It also ends the cursor of the statement before, which would hold a snapshot.
                    await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                    yield
                    return
            await asyncio.sleep(LOCK_POLL_SECONDS)
    finally:
        await connection.close()


def serialise_piccolo_migrations() -> None:
    """Make `piccolo migrations forwards` and `backwards` take the migration lock."""
    managers: tuple[Any, ...] = (ForwardsMigrationManager, BackwardsMigrationManager)
    for manager in managers:
        if not hasattr(manager.run, "__wrapped__"):
            manager.run = _locked(manager.run)


def _locked(run: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    @functools.wraps(run)
    async def run_alone(manager: Any) -> Any:
        async with migration_lock():
            return await run(manager)

    return run_alone


async def migrate() -> int:
    """Run every migration that has not run yet, of Mailroom and of the apps it brings along.

    Returns:
        How many of Mailroom's own migrations ran.

    Raises:
        MigrationError: one of them failed, or the database cannot be reached; the message says
            which and why.
    """
    try:
        before = await schema_state()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise MigrationError(
            f"the database cannot be reached ({error}): see that DATABASE_URL is right and that "
            "the server runs"
        ) from error
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            result = await run_forwards("all")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise MigrationError(f"a migration failed: {error}\n{output.getvalue()}") from error
    if not result.success:
        raise MigrationError(f"a migration failed: {result.message}\n{output.getvalue()}")
    return len(before.missing)


async def schema_state(connection: "Connection | None" = None) -> SchemaState:
    """Compare the migrations that the database has run with those of this code.

    Args:
        connection: to ask over; one of its own, where there is none.
    """
    if connection is None:
        own = await DB.get_new_connection()
        try:
            return await schema_state(own)
        finally:
            await own.close()
    ran: set[str] = set()
    if await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL"):
        rows = await connection.fetch(
            "SELECT name FROM migration WHERE app_name = $1", APP_CONFIG.app_name
        )
        ran = {row["name"] for row in rows}
    known = _known_ids()
    return SchemaState(missing=tuple(sorted(known - ran)), unknown=tuple(sorted(ran - known)))


async def say_whether_the_schema_fits() -> None:
    """Log where the database is older or newer than the code, or cannot be reached."""
    try:
        state = await schema_state()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.error("database_not_reachable", error=type(error).__name__)
        return
    if state.verdict != "current":
        log.error("schema_mismatch", verdict=state.verdict, explanation=state.explanation)


@functools.cache
def _known_ids() -> frozenset[str]:
    folder = APP_CONFIG.resolved_migrations_folder_path
    return frozenset(BaseMigrationManager().get_migration_modules(folder))
