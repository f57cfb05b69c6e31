"""`mailroom text`: what becomes of the body of an email."""

import json
import sys
from pathlib import Path

import click

from app.cli.printing import say, say_lines
from app.errors import MailroomError
from app.text.email_text import EmailText, read_email_text

STANDARD_INPUT = "-"


class UnreadableFileError(MailroomError):
    """A file that was named cannot be read."""


@click.command("text")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--subject", default="", help="The subject, which tells forwards and automatic mail.")
def show_text(files: tuple[str, ...], as_json: bool, subject: str) -> None:
    """Show what becomes of text or HTML files, `-` for standard input. It needs no database."""
    for name in files:
        content = _content(name)
        # What is no HTML is left as it is, whatever the file is called.
        read = (
            read_email_text(text=content, subject=subject)
            if name.lower().endswith(".txt")
            else read_email_text(html=content, subject=subject)
        )
        if as_json:
            fields = {"file": name, "cleaned_body": read.cleaned_body, **read.as_data()}
            say(json.dumps(fields, ensure_ascii=False))
        else:
            say_lines(_told(name, read))


def _content(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{name} cannot be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _told(name: str, read: EmailText) -> str:
    about = f"{read.kind.value}, language {read.language or 'unknown'}"
    told = [f"== {name}: {about}, confidence {read.confidence:g}", read.cleaned_body]
    for part in ("quoted", "signature", "forwarded"):
        content = getattr(read, part)
        if content:
            told += [f"-- {part}", content]
    return "\n".join(told)
