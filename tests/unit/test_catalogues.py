"""The catalogues hold what pages say, all of it, and pages say nothing past them."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.frontend import CommandLineInterface
from babel.messages.pofile import read_po
from jinja2 import nodes
from support import PROJECT

from app.desk.addresses import FOLDER
from app.desk.pages import template_config
from app.desk.values import SHOWN
from app.i18n.languages import ENGLISH, LANGUAGES, path_of
from app.models.alarm import AlarmKind
from app.models.audit_entry import ActorKind, Door, Result
from app.models.bulk_action import BulkState
from app.models.email_attachment import AttachmentState
from app.models.incoming_email import ProcessingStatus, SyncStatus
from app.models.operator_account import Role
from app.models.quarantined_webhook import RefusalReason

TRANSLATED = [language for language in LANGUAGES if language != ENGLISH]
TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))
PLACEHOLDER = re.compile(r"%\(\w+\)\w|%%")
TAG = re.compile(r"<[^>]+>")
# What is said in every language, or not to people.
SAME = {"Mailroom", "UTC", "CSV", "API"}
TOLD = ("title", "aria-label", "placeholder", "alt", "label")
NOT_TOLD = ("code", "kbd", "script", "style")


def ids_of(message: Message) -> tuple[str, ...]:
    return (message.id,) if isinstance(message.id, str) else tuple(message.id)


def texts_of(message: Message) -> tuple[str, ...]:
    text = message.string
    return (text,) if isinstance(text, str) else tuple(text or ())


def catalogue_of(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file)


def messages_of(path: Path) -> list[Message]:
    return [message for message in catalogue_of(path) if message.id]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    path = tmp_path_factory.mktemp("catalogues") / "mailroom.pot"
    mapping = PROJECT / "pyproject.toml"
    command = ["pybabel", "-q", "extract", "-F", str(mapping), "-o", str(path)]
    CommandLineInterface().run([*command, str(PROJECT / "app")])
    return messages_of(path)


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_catalogue_has_the_messages_of_the_pages_and_no_other(
    language: str, extracted: list[Message]
) -> None:
    said = {ids_of(message) for message in extracted}
    assert {ids_of(message) for message in messages_of(path_of(language))} == said


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_message_has_a_text(language: str) -> None:
    path = path_of(language)
    forms = catalogue_of(path).num_plurals
    wrong = [
        message.id
        for message in messages_of(path)
        if message.fuzzy
        or not all(texts_of(message))
        or len(texts_of(message)) != (forms if message.pluralizable else 1)
    ]
    assert wrong == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_placeholders_and_markup_are_those_of_the_message(language: str) -> None:
    wrong = []
    for message in messages_of(path_of(language)):
        ids = ids_of(message)
        for place, text in enumerate(texts_of(message)):
            # A sentence about one thing need not have its number.
            fitting = ids if place == 0 else ids[-1:]
            for pattern in (PLACEHOLDER, TAG):
                parts = sorted(pattern.findall(text))
                if parts not in [sorted(pattern.findall(one)) for one in fitting]:
                    wrong.append((message.id, text))
    assert wrong == []


class Words(HTMLParser):
    """The words of a template that its readers are told."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.found += [value for name, value in attrs if name in TOLD and value]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not set(NOT_TOLD) & set(self.open):
            self.found.append(data)


def parse(path: Path) -> nodes.Template:
    engine = template_config().engine_instance.engine
    return engine.parse(path.read_text())


def said_by_expressions(tree: nodes.Template) -> Iterator[str]:
    """Texts that an expression chooses between, as `{{ "yes" if it else "no" }}` does."""
    for choice in tree.find_all((nodes.CondExpr, nodes.Or)):
        parts = (
            (choice.expr1, choice.expr2)
            if isinstance(choice, nodes.CondExpr)
            else (choice.left, choice.right)
        )
        yield from (
            part.value
            for part in parts
            if isinstance(part, nodes.Const) and isinstance(part.value, str)
        )


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_tells_nothing_past_the_catalogue(path: Path) -> None:
    tree = parse(path)
    words = Words()
    words.feed("".join(data.data for data in tree.find_all(nodes.TemplateData)))
    words.close()
    told = [*words.found, *said_by_expressions(tree)]
    # Names of classes and values of attributes have no blanks and no capitals.
    past = [text.strip() for text in told if set(re.findall(r"[^\W\d_]+", text)) - SAME]
    assert [text for text in past if text not in ("bad", " bad", "note", "unknown")] == []


def test_values_that_pages_show_are_messages() -> None:
    kinds = (ProcessingStatus, AttachmentState, BulkState, RefusalReason, AlarmKind, Role)
    values = {str(value) for kind in (*kinds, ActorKind, Door, Result) for value in kind}
    # A page tells it by an empty cell.
    values |= set(SyncStatus) - {SyncStatus.NOT_APPLICABLE}
    # As `app.zendesk.gaps.Line` has them.
    values |= {"invocations", "tickets"}
    assert values == set(SHOWN)


def test_no_message_is_hidden_from_the_extraction() -> None:
    # It does not look into f-strings.
    hidden = re.compile(r"""\{(?:_|gettext|ngettext)\(['"]""")
    files = (PROJECT / "app").rglob("*.py")
    assert [str(path) for path in files if hidden.search(path.read_text())] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_translates_literal_messages_only(path: Path) -> None:
    # The text of anything else would be taken for markup; `translated` is for values.
    for call in parse(path).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in ("_", "gettext"):
            assert isinstance(call.args[0], nodes.Const), path.name
