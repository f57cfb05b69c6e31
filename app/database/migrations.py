"""Running the migrations one at a time.

Piccolo runs migrations without a lock, so two `forwards` at once can deadlock or run one twice.
"""

import asyncio
import contextlib
import functools
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from piccolo.apps.migrations.commands.backwards import BackwardsMigrationManager
from piccolo.apps.migrations.commands.forwards import ForwardsMigrationManager, run_forwards
from piccolo.apps.user.piccolo_app import APP_CONFIG as USER_APP
from piccolo_api.session_auth.piccolo_app import APP_CONFIG as SESSION_APP

from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.database.schema_fit import UTF_8, Connection, schema_state
from app.database.session_guard import guard_admins, guard_sessions
from app.errors import MailroomError

# Any number serves, as long as nothing else in the database locks by it: "mailroom" in ASCII.
MIGRATION_LOCK_KEY = int.from_bytes(b"mailroom", "big")
LOCK_POLL_SECONDS = 0.2


class MigrationError(MailroomError):
    """The migrations did not run to their end."""


@contextlib.asynccontextmanager
async def migration_lock() -> AsyncIterator[None]:
    """Hold the right to change the schema, across processes and machines.

    It polls: a session that waits inside `pg_advisory_xact_lock` holds a snapshot, and
    CREATE INDEX CONCURRENTLY waits for all snapshots, so the two would deadlock.
    """
    connection = await DB.get_new_connection()
    try:
        await _refuse_another_encoding(connection)
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


async def _refuse_another_encoding(connection: "Connection") -> None:
    state = await schema_state(connection)
    if state.encoding != UTF_8:
        raise MigrationError(state.explanation)


def serialise_piccolo_migrations() -> None:
    """Make `piccolo migrations forwards` and `backwards` take the migration lock."""
    managers: tuple[Any, ...] = (ForwardsMigrationManager, BackwardsMigrationManager)
    for manager in managers:
        if not hasattr(manager.run, "__wrapped__"):
            manager.run = _locked(manager.run)


def _locked(run: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    @functools.wraps(run)
    async def run_alone(manager: Any) -> Any:
        async with migration_lock(), _one_connection():
            result = await run(manager)
            forwards = isinstance(manager, ForwardsMigrationManager) and not manager.preview
            if forwards and manager.app_name in (USER_APP.app_name, SESSION_APP.app_name):
                await guard_sessions()
                await guard_admins()
            return result

    return run_alone


@contextlib.asynccontextmanager
async def _one_connection() -> AsyncIterator[None]:
    """Have Piccolo's statements share a connection, or each of hundreds opens one of its own.

    Statements that take long have their own. A connection that is idle beside them for minutes is
    closed, and opened again. Where a pool runs already, it serves.
    """
    if DB.pool is not None:
        yield
        return
    # A statement that is kept may not fit the tables after the next migration.
    await DB.start_connection_pool(max_size=1, statement_cache_size=0)
    try:
        yield
    finally:
        await DB.close_connection_pool()


async def migrate() -> int:
    """Run every migration that has not run yet, of Mailroom and of the apps it brings along.

    Returns:
        How many ran.

    Raises:
        MigrationError: one of them failed, the database cannot be reached, or its encoding cannot
            hold every email; the message says which and why.
    """
    try:
        before = await schema_state()
    except CANNOT_ASK as error:
        raise MigrationError(
            f"the database cannot be reached ({error}): see that DATABASE_URL is right and that "
            "the server runs"
        ) from error
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            result = await run_forwards("all")
    except CANNOT_ASK as error:
        raise MigrationError(f"a migration failed: {error}\n{output.getvalue()}") from error
    if not result.success:
        raise MigrationError(f"a migration failed: {result.message}\n{output.getvalue()}")
    return len(before.missing) + len(before.missing_of_operators)
