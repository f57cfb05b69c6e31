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
from piccolo.apps.user.piccolo_app import APP_CONFIG as USER_APP
from piccolo_api.mfa.authenticator.piccolo_app import APP_CONFIG as SECOND_STEP_APP
from piccolo_api.session_auth.piccolo_app import APP_CONFIG as SESSION_APP

from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.database.session_guard import guard_admins, guard_sessions
from app.errors import MailroomError
from app.i18n.texts import gettext as _
from app.models.incoming_email import IncomingEmail
from app.piccolo_app import APP_CONFIG

log = structlog.get_logger(__name__)

# Any number serves, as long as nothing else in the database locks by it: "mailroom" in ASCII.
MIGRATION_LOCK_KEY = int.from_bytes(b"mailroom", "big")
LOCK_POLL_SECONDS = 0.2
# A database that does not answer must not keep a process from its work.
SCHEMA_CHECK_SECONDS = 3.0

UTF_8 = "UTF8"
COLUMNS_OF_EMAILS = """
SELECT attname AS name, attnotnull AND NOT atthasdef AND attidentity = '' AS has_to_be_filled
FROM pg_attribute
WHERE attrelid = to_regclass('incoming_emails') AND attnum > 0 AND NOT attisdropped
"""
APPS = (APP_CONFIG, USER_APP, SESSION_APP, SECOND_STEP_APP)


Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


class MigrationError(MailroomError):
    """The migrations did not run to their end."""


@attrs.frozen
class SchemaState:
    """How the database's schema compares with the one this code was written for."""

    missing: tuple[str, ...]
    """Mailroom's migrations that the database has not run: the database is older."""

    missing_of_operators: tuple[str, ...]
    """Those of the tables of users and sessions: email is taken, and nobody can sign in."""

    unknown: tuple[str, ...]
    """Migrations that the database has run and this code does not have: it is newer."""

    unfit: tuple[str, ...]
    """Columns of the emails' table that this code knows and the database has no longer, and those
    that it has to fill and does not know: what a newer version may have made of the table."""

    encoding: str
    """The database's character set."""

    @property
    def takes_email(self) -> bool:
        """Whether every email can be stored."""
        return self.encoding == UTF_8 and not self.missing and not self.unfit

    @property
    def verdict(self) -> str:
        """`wrong encoding`, `older`, `too new`, `changed`, `newer` or `current`; the first of them
        that is true."""
        if self.encoding != UTF_8:
            return "wrong encoding"
        if self.missing or self.missing_of_operators:
            return "older"
        if self.unfit:
            return "too new" if self.unknown else "changed"
        return "newer" if self.unknown else "current"

    @property
    def explanation(self) -> str:
        """One sentence for logs and people."""
        if self.encoding != UTF_8:
            return (
                f"the database's encoding is {self.encoding}, which cannot hold every email (a "
                "euro sign, an emoji): make a database in UTF-8 (CREATE DATABASE mailroom ENCODING "
                "'UTF8' TEMPLATE template0), move the data there with pg_dump, and let "
                "DATABASE_URL lead to it"
            )
        if missing := (*self.missing, *self.missing_of_operators):
            return _(
                "the database is older than the code (not yet run: %(missing)s): "
                "run `mailroom migrate`",
                missing=", ".join(missing),
            )
        if self.unfit and self.unknown:
            return (
                f"the database is too new for this code ({'; '.join(self.unfit)}): deploy the "
                f"version of Mailroom that brought {', '.join(self.unknown)}, or have that version "
                f"take it back with `piccolo migrations backwards mailroom {self.unknown[0]}`"
            )
        if self.unfit:
            return (
                f"the table of emails was changed by something else than Mailroom's migrations "
                f"({'; '.join(self.unfit)}): undo that"
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
        async with migration_lock():
            result = await run(manager)
            forwards = isinstance(manager, ForwardsMigrationManager) and not manager.preview
            if forwards and manager.app_name in (USER_APP.app_name, SESSION_APP.app_name):
                await guard_sessions()
                await guard_admins()
            return result

    return run_alone


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
    encoding = await connection.fetchval("SELECT getdatabaseencoding()")
    known, ran = _known(), set[tuple[str, str]]()
    if await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL"):
        rows = await connection.fetch(
            "SELECT app_name, name FROM migration WHERE app_name = ANY($1)",
            [app.app_name for app in APPS],
        )
        ran = {(row["app_name"], row["name"]) for row in rows}
    missing, unknown = sorted(known - ran), sorted(ran - known)
    columns = await connection.fetch(COLUMNS_OF_EMAILS)
    return SchemaState(
        missing=tuple(name for app, name in missing if app == APP_CONFIG.app_name),
        missing_of_operators=tuple(
            f"{app} {name}" for app, name in missing if app != APP_CONFIG.app_name
        ),
        unknown=tuple(
            name if app == APP_CONFIG.app_name else f"{app} {name}" for app, name in unknown
        ),
        unfit=_find_unfit({row["name"]: row["has_to_be_filled"] for row in columns}),
        encoding=encoding,
    )


def _find_unfit(columns: dict[str, bool]) -> tuple[str, ...]:
    """What of the columns does not fit. A column more does no harm, unless it has to be filled.

    Args:
        columns: whether each has to be filled.
    """
    expected = {column._meta.db_column_name for column in IncomingEmail._meta.columns}
    return (
        *(f"{name} is missing" for name in sorted(expected - columns.keys())),
        *(
            f"{name} has to be filled, and is unknown"
            for name, has_to_be_filled in sorted(columns.items())
            if has_to_be_filled and name not in expected
        ),
    )


async def say_whether_the_schema_fits() -> None:
    """Log where the database does not fit the code, or cannot be reached in some seconds."""
    try:
        async with asyncio.timeout(SCHEMA_CHECK_SECONDS):
            state = await schema_state()
    except CANNOT_ASK as error:
        log.error("database_not_reachable", error=type(error).__name__)
        return
    if state.verdict != "current":
        log.error("schema_mismatch", verdict=state.verdict, explanation=state.explanation)


@functools.cache
def _known() -> frozenset[tuple[str, str]]:
    return frozenset(
        (app.app_name, name)
        for app in APPS
        for name in BaseMigrationManager().get_migration_modules(
            app.resolved_migrations_folder_path
        )
    )
