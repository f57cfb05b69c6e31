"""`mailroom user`: who may sign in, and as what."""

import sys
from collections.abc import Awaitable, Callable

import click

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import Connection, Database, in_transaction, write
from app.cli.acting import command_actor
from app.cli.database_access import ask
from app.cli.printing import say
from app.desk.authenticator import turn_off
from app.desk.identities import LINK
from app.desk.operators import Operator
from app.desk.people import (
    CREATE,
    SET_ROLE,
    Person,
    end_sessions,
    keeping_an_admin,
    list_people,
)
from app.errors import MailroomError
from app.models.operator_account import Role
from app.models.operator_identity import LONGEST_SUBJECT
from app.settings import get_settings

FIND = "SELECT id FROM piccolo_user WHERE username = $1"
SET_PASSWORD = "UPDATE piccolo_user SET password = $2 WHERE id = $1"  # noqa: S105 - no secret
SET_ACTIVE = "UPDATE piccolo_user SET active = $2 WHERE id = $1"

ROLE = click.Choice([role.value for role in Role])
NAME = click.argument("name")


class UserError(MailroomError):
    """A user cannot be made or changed."""


@click.group()
def user() -> None:
    """Make users of the desk and of Piccolo Admin, and say what they may do."""


@user.command("list")
def list_all() -> None:
    """List the users, with their roles and how many sessions they have."""
    for person in ask(list_people):
        say(_line(person))


@user.command()
@NAME
@click.option("--email", required=True, help="Piccolo wants one of each user.")
@click.option("--role", type=ROLE, default=Role.OPERATOR.value, show_default=True)
def create(name: str, email: str, role: str) -> None:
    """Make the user NAME. The password is asked for, or read as a line of standard input."""
    password = _password()

    async def make(connection: Connection) -> int:
        hashed = await Operator.prepare(password)
        user_id: int | None = await connection.fetchval(
            CREATE, name, hashed, email, role == Role.ADMIN
        )
        if user_id is None:
            raise UserError(f"there is a user {name} already, or one with the same email")
        await connection.execute(SET_ROLE, user_id, role)
        return user_id

    _written(Act.USER_CREATE, make, {"role": role})


@user.command("role")
@NAME
@click.argument("role", type=ROLE)
def set_role(name: str, role: str) -> None:
    """Say what NAME may do: viewer, operator or admin."""

    async def change(connection: Connection) -> int:
        user_id = await _find(connection, name)
        await connection.execute(SET_ROLE, user_id, role)
        return user_id

    _written(Act.USER_ROLE, change, {"role": role})


@user.command()
@NAME
def password(name: str) -> None:
    """Give NAME another password, which ends their sessions. It is asked for, or read as a line of
    standard input."""
    given = _password()

    async def change(connection: Connection) -> int:
        user_id = await _find(connection, name)
        await connection.execute(SET_PASSWORD, user_id, await Operator.prepare(given))
        return user_id

    _written(Act.USER_CHANGE, change, {"fields": ["password"]})


@user.command()
@NAME
def deactivate(name: str) -> None:
    """Let NAME sign in no longer, and end their sessions."""

    async def change(connection: Connection) -> int:
        user_id = await _find(connection, name)
        await connection.execute(SET_ACTIVE, user_id, False)
        await end_sessions(connection, user_id)
        return user_id

    _written(Act.USER_CHANGE, change, {"fields": ["active"]})


@user.command("reset-second-step")
@NAME
def reset_second_step(name: str) -> None:
    """Ask NAME for no code of an authenticator app any longer, such as after a phone was lost."""

    async def change(connection: Connection) -> int:
        user_id = await _find(connection, name)
        if not await turn_off(connection, user_id):
            raise UserError(f"no code is asked of {name}: there is nothing to reset")
        return user_id

    _written(Act.SECOND_STEP_RESET, change, None)


@user.command()
@NAME
@click.argument("subject")
def link(name: str, subject: str) -> None:
    """Let whoever the OpenID Connect provider calls SUBJECT sign in as NAME."""
    issuer = get_settings().oidc_issuer
    if not issuer:
        raise UserError("MAILROOM_OIDC_ISSUER is not set: there is no provider to link with")
    if not 0 < len(subject) <= LONGEST_SUBJECT:
        raise UserError(f"a subject has 1 to {LONGEST_SUBJECT} characters")

    async def change(connection: Connection) -> int:
        user_id = await _find(connection, name)
        await connection.execute(LINK, issuer, subject, user_id)
        return user_id

    _written(Act.USER_LINK, change, None)


@user.command("end-sessions")
@NAME
def end(name: str) -> None:
    """Sign NAME out everywhere."""

    async def change(connection: Connection) -> int:
        user_id = await _find(connection, name)
        await end_sessions(connection, user_id)
        return user_id

    _written(Act.SESSIONS_END, change, None)


def _written(
    act: Act,
    change: Callable[[Connection], Awaitable[int]],
    details: dict[str, object] | None,
) -> None:
    actor: Actor = command_actor()

    async def run(database: Database) -> None:
        async with in_transaction(database) as connection:
            with keeping_an_admin():
                user_id = await change(connection)
            await write(connection, actor, act, [user_id], details=details)

    try:
        ask(run)
    except ValueError as error:
        raise UserError(str(error)) from error


async def _find(connection: Connection, name: str) -> int:
    user_id: int | None = await connection.fetchval(FIND, name)
    if user_id is None:
        raise UserError(f"there is no user {name}: see `mailroom user list`")
    return user_id


def _password() -> str:
    if sys.stdin.isatty():
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return given
    return sys.stdin.readline().rstrip("\n")


def _line(person: Person) -> str:
    state = "may sign in" if person.active else "may not sign in"
    seen = person.last_login.isoformat(timespec="minutes") if person.last_login else "never"
    return (
        f"{person.username}  {person.role}  {state}, signed in last: {seen}, "
        f"{person.sessions} sessions, second step {'on' if person.second_step else 'off'}"
    )
