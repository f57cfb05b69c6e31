"""How a command prints. All its output goes through here, because most of it holds text of
strangers: subjects, headers, bodies, errors that quote them.

A terminal obeys what is written to it: escape sequences clear the screen, rename the window or
fill the clipboard, and characters of direction show text other than it is.
"""

import re
import sys

import click

# Control characters (C0, DEL, C1), line and paragraph separators, and the marks, embeddings,
# overrides and isolates of direction. https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
# Half of a surrogate pair cannot be written as UTF-8.
_NOT_SHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def say(line: str, *, is_error: bool = False) -> None:
    """Print one line. What is no visible character is written as JSON would escape it, line
    breaks too: a value that holds one cannot pass for two lines."""
    click.echo(_NOT_SHOWN.sub(_escape, line), err=is_error)


def say_lines(text: str, *, is_error: bool = False) -> None:
    """Print text whose line breaks and tabs are meant, such as a body or indented JSON; otherwise
    as `say` does."""
    for line in re.split("\r?\n", text):
        click.echo(
            "\t".join(_NOT_SHOWN.sub(_escape, part) for part in line.split("\t")), err=is_error
        )


def write_bytes(body: bytes) -> None:
    """Write bytes as they are, to a file or another program and never to a terminal.

    Raises:
        UsageError: standard output is a terminal.
    """
    if sys.stdout.isatty():
        raise click.UsageError("these bytes are not for a terminal: name a file, or redirect them")
    sys.stdout.buffer.write(body)


def flush() -> None:
    """Have everything out that was printed, before this process turns into another program."""
    sys.stdout.flush()
    sys.stderr.flush()


def _escape(character: re.Match[str]) -> str:
    return _SHORT.get(character.group()) or f"\\u{ord(character.group()):04x}"
