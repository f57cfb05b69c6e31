"""What the documents name is there: files, headings, tests, commands and their options."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from support import PROJECT

from app.cli.main import main

DOCUMENTS = [*(PROJECT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
DOCUMENTS += sorted((PROJECT / "docs").glob("*.md"))
A_PATH = re.compile(r"(?:app|tests|docs|examples|benchmarks|piccolo_migrations|\.ci)/[\w./-]*")
A_TEST = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))")
# At the begin of a line, after settings of its own, or after another command.
A_COMMAND = re.compile(r"(?:^|[|&] )(?:[A-Z_]+=\S+ )*mailroom ([^|&#\n]*)", re.MULTILINE)

name_of = {"ids": lambda path: str(path.relative_to(PROJECT))}


@cache
def tokens(document: Path) -> list[Token]:
    """All of a document, headings and inline parts in one row."""
    row: list[Token] = []
    for token in MarkdownIt().enable("table").parse(document.read_text()):
        row += [token, *(token.children or [])]
    return row


@cache
def anchors(document: Path) -> set[str]:
    """Where links into a document may lead, named as GitHub names headings."""
    found: set[str] = set()
    row = tokens(document)
    for heading, inline in pairwise(row):
        if heading.type != "heading_open":
            continue
        text = "".join(part.content for part in inline.children or []).lower()
        slug = base = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        number = 0
        while slug in found:
            number += 1
            slug = f"{base}-{number}"
        found.add(slug)
    return found


def code(document: Path) -> Iterator[str]:
    """What is printed as code, in a line or as a block."""
    for token in tokens(document):
        if token.type in ("code_inline", "code_block", "fence"):
            yield token.content


@pytest.mark.parametrize("document", DOCUMENTS, **name_of)
def test_links_lead_somewhere(document: Path) -> None:
    dead = []
    for token in tokens(document):
        link = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not link or "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


# What changed tells of files that were there.
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != "CHANGELOG.md"], **name_of)
def test_files_and_tests_that_are_named_are_there(document: Path) -> None:
    missing = []
    for text in code(document):
        named = A_PATH.findall(text) if A_PATH.match(text) else []
        missing += [path for path in named if not (PROJECT / path).exists()]
        missing += [
            f"{path}::{name}"
            for path, name in A_TEST.findall(text)
            if f"def {name}(" not in (PROJECT / path).read_text()
        ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, **name_of)
def test_commands_and_their_options_are_there(document: Path) -> None:
    lines = [
        line for text in code(document) for line in A_COMMAND.findall(text.replace("\\\n", " "))
    ]
    assert {line: unknown for line in lines if (unknown := unknown_in(line))} == {}


def unknown_in(line: str) -> str | None:
    """The first word of a command line that `mailroom` does not know."""
    command: click.Command = main
    for before, word in pairwise(["mailroom", *shlex.split(line)]):
        if word.startswith("-") and word != "-":
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
            if word.partition("=")[0] not in known | {"--help", "-h"}:
                return word
        elif isinstance(command, click.Group) and not before.startswith("-") and word.islower():
            found = command.get_command(click.Context(command), word)
            if found is None:
                return word
            command = found
    return None


def test_readme_and_site_lead_to_every_document() -> None:
    linked = {str(token.attrs.get("href")) for token in tokens(PROJECT / "README.md")}
    listed = (PROJECT / "docs" / "conf.py").read_text()
    for document in DOCUMENTS[1:]:
        path = str(document.relative_to(PROJECT))
        assert path in linked
        name = path.removeprefix("docs/") if "/" in path else f"../{path}"
        assert f'"{name.removesuffix(".md")}"' in listed


def test_the_floor_plan_has_every_room() -> None:
    plan = (PROJECT / "docs" / "architecture.md").read_text()
    rooms = {p.parent.name for p in (PROJECT / "app").glob("*/*.py")}
    assert sorted(room for room in rooms if f"`app/{room}/`" not in plan) == []
