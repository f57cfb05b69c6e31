"""How a command prints. All its output goes through here, because most of it holds text of
strangers: subjects, headers, bodies, errors that quote them.

A terminal obeys what is written to it: escape sequences clear the screen, rename the window or
fill the clipboard, and characters of direction show text other than it is.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

import click
from rich.console import Console
from rich.table import Table

from app.errors import MailroomError

# Control characters (C0, DEL, C1), line and paragraph separators, and the marks, embeddings,
# overrides and isolates of direction. https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
# Half of a surrogate pair cannot be written as UTF-8.
_NOT_SHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class OutputError(MailroomError):
    """What a command prints cannot be written."""


def say(line: str, *, is_error: bool = False) -> None:
    """Print one line. What is no visible character is written as JSON would escape it, line
    breaks too: a value that holds one cannot pass for two lines.

    Raises:
        OutputError: it cannot be written.
        SystemExit: nobody reads it any more.
    """
    _print(_NOT_SHOWN.sub(_escape, line), is_error=is_error)


def say_lines(text: str, *, is_error: bool = False) -> None:
    """Print text whose line breaks and tabs are meant, such as a body or indented JSON; otherwise
    as `say` does."""
    for line in re.split("\r?\n", text):
        shown = (_NOT_SHOWN.sub(_escape, part) for part in line.split("\t"))
        _print("\t".join(shown), is_error=is_error)


def say_table(table: Table) -> None:
    """Print a table of our own words and numbers, as wide as the terminal is.

    Raises:
        OutputError: it cannot be written.
        SystemExit: nobody reads it any more.
    """
    with _told_if_it_fails(sys.stdout):
        Console().print(table)


def write_bytes(body: bytes) -> None:
    """Write bytes as they are, to a file or another program and never to a terminal.

    Raises:
        UsageError: standard output is a terminal.
        OutputError: they cannot be written.
        SystemExit: nobody reads them any more.
    """
    if sys.stdout.isatty():
        raise click.UsageError("these bytes are not for a terminal: name a file, or redirect them")
    with _told_if_it_fails(sys.stdout):
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()


def flush() -> None:
    """Have everything out that was printed, before this process turns into another program."""
    sys.stdout.flush()
    sys.stderr.flush()


def _print(line: str, *, is_error: bool) -> None:
    with _told_if_it_fails(sys.stderr if is_error else sys.stdout):
        click.echo(line, err=is_error)


@contextlib.contextmanager
def _told_if_it_fails(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Python tries once more when it ends, and would tell of that, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):
            # Whoever read it, such as `head`, has enough.
            raise SystemExit(1) from None
        raise OutputError(
            f"what is printed cannot be written ({error.strerror}): see where the output leads"
        ) from error


def _escape(character: re.Match[str]) -> str:
    return _SHORT.get(character.group()) or f"\\u{ord(character.group()):04x}"
