"""How a command asks the database, and what it says where that is not possible."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import asyncpg

from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.errors import MailroomError
from app.jobs.transitions.common import Database

T = TypeVar("T")


class DatabaseError(MailroomError):
    """The database cannot be used."""


class UnusableFileError(MailroomError):
    """A file that is asked for or named in the settings cannot be used."""


class UnfitValueError(MailroomError):
    """The database takes no such value, such as one that is too long."""


def ask(work: Callable[[Database], Awaitable[T]]) -> T:
    """Do some work over a connection of its own.

    Raises:
        MailroomError: one of `told_in_a_sentence`.
    """

    async def run() -> T:
        connection = await DB.get_new_connection()
        try:
            return await work(connection)
        finally:
            await connection.close()

    try:
        with told_in_a_sentence():
            return asyncio.run(run())
    finally:
        DB.release()


def run_with_pool(work: "Callable[[asyncpg.Pool[asyncpg.Record]], Awaitable[T]]") -> T:
    """Do some work over a few connections.

    Raises:
        MailroomError: one of `told_in_a_sentence`.
    """

    async def run() -> T:
        await DB.ensure_running()
        async with DB.make_pool(max_size=2) as pool:
            return await work(pool)

    try:
        with told_in_a_sentence():
            return asyncio.run(run())
    finally:
        DB.release()


@contextlib.contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """Turn what the driver raises, and what else a command meets meanwhile, into what a person can
    mend.

    Raises:
        DatabaseError: the database is away, or not migrated.
        UnusableFileError: it was a file.
        UnfitValueError: it was a value.
    """
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise DatabaseError(
            "the database is older than this version: run `mailroom migrate`"
        ) from error
    except CANNOT_ASK as error:
        raise _explained(error) from error


def _explained(error: Exception) -> MailroomError:
    said = f"{type(error).__name__} {error}".splitlines()[0].strip()
    # No error of a connection names a file.
    if isinstance(error, OSError) and error.filename:
        return UnusableFileError(f"{error.filename} cannot be used: {error.strerror}")
    # The server's, and the driver's own: that is an InterfaceError and a ValueError.
    if isinstance(error, asyncpg.DataError | ValueError):
        return UnfitValueError(f"the database does not take a value that was given ({said})")
    return DatabaseError(
        f"the database cannot be used ({said}): see that it runs and that DATABASE_URL is right"
    )
