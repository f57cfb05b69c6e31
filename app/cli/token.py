"""`mailroom token`."""

from datetime import datetime

import click

from app.api.tokens import create_token, list_tokens, revoke_token
from app.audit.acts import Act
from app.audit.log import Database, in_transaction, write
from app.cli.acting import command_actor
from app.cli.database_access import ask
from app.cli.printing import say
from app.models.api_token import Scope


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
    actor = command_actor()

    async def make(database: Database) -> str:
        async with in_transaction(database) as connection:
            made = await create_token(connection, name, Scope(scope))
            await write(connection, actor, Act.TOKEN_CREATE, [name], details={"scope": scope})
        return made

    say(ask(make))


@token.command("list")
def list_all() -> None:
    """List the tokens, without what is secret of them."""
    for made in ask(list_tokens):
        ended = f"revoked {_day(made.revoked_at)}" if made.revoked_at else "valid"
        used = f"last used {_day(made.last_used_at)}" if made.last_used_at else "never used"
        say(f"{made.name}  {made.scope}  made {_day(made.created_at)}, {used}, {ended}")


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Make the token of NAME useless."""
    actor = command_actor()

    async def end(database: Database) -> None:
        async with in_transaction(database) as connection:
            await revoke_token(connection, name)
            await write(connection, actor, Act.TOKEN_REVOKE, [name])

    ask(end)


def _day(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")
