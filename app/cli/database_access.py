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


def ask(work: Callable[[Database], Awaitable[T]]) -> T:
    """Do some work over a connection of its own.

    Raises:
        DatabaseError: the database is away, or not migrated.
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
        DatabaseError: the database is away, or not migrated.
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
    """Turn what the driver raises into what a person can mend.

    Raises:
        DatabaseError: the database is away, or not migrated.
    """
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise DatabaseError(
            "the database is older than this version: run `mailroom migrate`"
        ) from error
    except CANNOT_ASK as error:
        said = f"{type(error).__name__} {error}".splitlines()[0].strip()
        raise DatabaseError(
            f"the database cannot be used ({said}): see that it runs and that DATABASE_URL is right"
        ) from error
