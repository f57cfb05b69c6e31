"""Where the log of a command goes, and what it holds: to stderr, and no values."""

import logging
from collections.abc import Iterator
from copy import copy as copy_object

import click
import pytest
import structlog
from click.testing import CliRunner

from app.cli.main import COMMANDS, main

TOKEN = "a-token-that-stands-in-no-log"


def log_a_failure() -> None:
    secret = TOKEN
    for logger in (structlog.get_logger("ours"), logging.getLogger("of a library")):
        try:
            int(secret)
        except ValueError:
            logger.warning("look_failed", exc_info=True)
        logger.info("begun")


def with_subcommands(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of a command and of each below it, all of which now log and do nothing else."""
    command.params, command.callback = [], log_a_failure
    if not isinstance(command, click.Group):
        yield words
        return
    if command.invoke_without_command:
        yield words
    for name, subcommand in command.commands.items():
        yield from with_subcommands(subcommand, *words, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_logs_to_stderr_and_shows_no_values(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = copy(loaded(name))
    monkeypatch.setattr(type(main), "get_command", lambda *_: command)
    for words in with_subcommands(command, name):
        ended = CliRunner().invoke(main, words, catch_exceptions=False)
        assert ended.exit_code == 0
        assert ended.stdout == "", words
        assert ended.stderr.count("look_failed") >= 2 and "ValueError" in ended.stderr, words
        assert TOKEN not in ended.stderr and "begun" not in ended.stderr, words


def loaded(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


def copy(command: click.Command) -> click.Command:
    """A command of its own, or what a test changes in it stays changed."""
    copied = copy_object(command)
    if isinstance(copied, click.Group):
        copied.commands = {name: copy(one) for name, one in copied.commands.items()}
    return copied
