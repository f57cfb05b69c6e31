"""Who types a command, for the audit log and the stories of emails."""

import click

from app.audit.actors import Actor

# How an operator at a terminal is called in the story of an email who does not say a name.
BY = "an operator at the command line"


def command_actor() -> Actor:
    """Who typed the command that runs."""
    return Actor.command(_acting_as())


def by() -> str:
    """How stories of emails name them."""
    return _acting_as() or BY


def _acting_as() -> str | None:
    name: str | None = click.get_current_context().find_root().params.get("acting_as")
    return name
