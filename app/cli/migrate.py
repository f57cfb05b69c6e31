"""`mailroom migrate`."""

import asyncio

import click

from app.audit.acts import Act
from app.audit.log import write
from app.cli.acting import command_actor
from app.cli.database_access import ask
from app.cli.printing import say
from app.database.engine import DB
from app.database.migrations import migrate
from app.settings import get_settings
from app.telemetry.logs import configure_logging


@click.command("migrate")
def migrate_database() -> None:
    """Bring the database up to this version.

    The same as `piccolo migrations forwards all`. It can be run from several machines at once, and
    while email comes in.
    """
    configure_logging(get_settings())
    try:
        count = asyncio.run(migrate())
    finally:
        DB.release()
    if count:
        actor = command_actor()
        ask(lambda database: write(database, actor, Act.MIGRATE, count=count))
    say(f"{count} migrations ran." if count else "The database is up to date.")
