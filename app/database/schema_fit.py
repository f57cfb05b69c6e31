"""Whether database and code fit together: as each web process and worker looks when it starts.

Of the migrations it knows the ids alone. What runs them, `app.database.migrations`, needs a good
deal of memory and time to be loaded.
"""

import asyncio
import functools
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import asyncpg
import attrs
import structlog

from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.i18n.texts import gettext as _
from app.models.incoming_email import IncomingEmail

log = structlog.get_logger(__name__)

# A database that does not answer must not keep a process from its work.
SCHEMA_CHECK_SECONDS = 3.0

UTF_8 = "UTF8"
COLUMNS_OF_EMAILS = """
SELECT attname AS name, attnotnull AND NOT atthasdef AND attidentity = '' AS has_to_be_filled
FROM pg_attribute
WHERE attrelid = to_regclass('incoming_emails') AND attnum > 0 AND NOT attisdropped
"""
OURS = "mailroom"
MIGRATIONS_OF = {
    OURS: "",
    "user": "piccolo.apps.user",
    "session_auth": "piccolo_api.session_auth",
    "mfa_authenticator": "piccolo_api.mfa.authenticator",
}
"""The package of each app of Piccolo's whose migrations are run; ours stand beside `app`."""

ID = re.compile(r'^ID = "([^"]+)"', re.MULTILINE)


Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


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
    known, ran = known_migrations(), set[tuple[str, str]]()
    if await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL"):
        rows = await connection.fetch(
            "SELECT app_name, name FROM migration WHERE app_name = ANY($1)",
            list(MIGRATIONS_OF),
        )
        ran = {(row["app_name"], row["name"]) for row in rows}
    missing, unknown = sorted(known - ran), sorted(ran - known)
    columns = await connection.fetch(COLUMNS_OF_EMAILS)
    return SchemaState(
        missing=tuple(name for app, name in missing if app == OURS),
        missing_of_operators=tuple(f"{app} {name}" for app, name in missing if app != OURS),
        unknown=tuple(name if app == OURS else f"{app} {name}" for app, name in unknown),
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
def known_migrations() -> frozenset[tuple[str, str]]:
    """Those that this code brings: app and id of each."""
    return frozenset(
        (app, found[1])
        for app, package in MIGRATIONS_OF.items()
        for path in _folder_of(package).glob("*.py")
        if (found := ID.search(path.read_text()))
    )


def _folder_of(package: str) -> Path:
    spec = find_spec(package or "app")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(package)
    place = Path(spec.submodule_search_locations[0]).resolve()
    return (place if package else place.parent) / "piccolo_migrations"
