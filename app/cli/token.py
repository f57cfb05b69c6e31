"""`mailroom token`."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import asyncpg
import click

from app.database import DB
from app.desk.tokens import NO_ANSWER, TokenError, create_token, list_tokens, revoke_token
from app.jobs.transitions import Database
from app.models.api_token import Scope

T = TypeVar("T")


@click.group()
def token() -> None:
    """Make and revoke the bearer tokens of the HTTP API."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope]),
    default=Scope.READ.value,
    show_default=True,
    help="`metrics` opens /metrics alone; `operate` may also retry and erase emails.",
)
def create(name: str, scope: str) -> None:
    """Make a token for NAME, and print it: it is not shown again."""
    click.echo(_run(lambda database: create_token(database, name, Scope(scope))))


@token.command("list")
def list_all() -> None:
    """List the tokens, without what is secret of them."""
    for made in _run(list_tokens):
        ended = f"revoked {_day(made.revoked_at)}" if made.revoked_at else "valid"
        used = f"last used {_day(made.last_used_at)}" if made.last_used_at else "never used"
        click.echo(f"{made.name}  {made.scope}  made {_day(made.created_at)}, {used}, {ended}")


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Make the token of NAME useless."""
    _run(lambda database: revoke_token(database, name))


def _run(work: Callable[[Database], Awaitable[T]]) -> T:
    async def run() -> T:
        connection = await DB.get_new_connection()
        try:
            return await work(connection)
        finally:
            await connection.close()

    try:
        return asyncio.run(run())
    except asyncpg.UndefinedTableError as error:
        raise TokenError("the database has no tables yet: run `mailroom migrate`") from error
    except NO_ANSWER as error:
        said = f"{type(error).__name__} {error}".splitlines()[0].strip()
        raise TokenError(
            f"the database cannot be asked ({said}): see whether it runs, and DATABASE_URL"
        ) from error
    finally:
        DB.release()


def _day(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")
