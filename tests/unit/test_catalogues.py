"""The catalogues hold what pages say, all of it, and pages say nothing past them."""

import ast
import contextvars
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
from app.i18n.languages import ENGLISH, LANGUAGES, path_of, speak
from app.i18n.stored_texts import as_told
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
# What people at the desk are refused; the pages of Piccolo Admin are programs, and speak English.
REFUSING = [
    *(path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("admin")),
    *(PROJECT / "app" / name for name in ("api/search.py", "api/search_text.py")),
    *(PROJECT / "app" / name for name in ("jobs/pausing.py", "bulk/asking.py")),
]
# Whose errors pages tell by `as_told`, and what of them none does.
CATCHING = [
    PROJECT / "app" / name
    for name in (
        *("intake/signature.py", "intake/mended_body.py", "intake/broken_json.py"),
        *("intake/field_orders.py", "intake/sender_ranges.py", "intake/row_writer.py"),
        *("attachments/store.py", "attachments/virus_check.py", "attachments/records.py"),
        *("outbound/client.py", "outbound/rules.py", "outbound/network.py"),
        *("zendesk/client.py", "zendesk/items.py", "zendesk/suspended/api.py"),
    )
]
NOT_ON_PAGES = {"sockets in the file system are not called"}
NAMES = re.compile(r"[a-z, ]+: ")
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


def says_past_the_catalogue(node: ast.AST) -> bool:
    """Whether there is a text in it that no call of gettext has. Names of parameters are none."""
    if isinstance(node, ast.Call):
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if called in ("_", "gettext", "ngettext", "N_"):
            return False
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and " " in node.value
    if isinstance(node, ast.JoinedStr):
        texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        return any(re.search("[a-z]", text) and not NAMES.fullmatch(text) for text in texts)
    return any(map(says_past_the_catalogue, ast.iter_child_nodes(node)))


@pytest.mark.parametrize("path", REFUSING, ids=lambda path: path.stem)
def test_what_a_page_refuses_is_a_message(path: Path) -> None:
    wrong = [
        f"{node.lineno}: {ast.unparse(node.exc)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and node.exc and says_past_the_catalogue(node.exc)
        # A defect of ours, which the log tells.
        if not ast.unparse(node.exc).startswith("LookupError(")
    ]
    assert wrong == []


@pytest.mark.parametrize("path", CATCHING, ids=lambda path: str(path.relative_to(PROJECT / "app")))
def test_what_pages_tell_of_others_errors_is_known(path: Path) -> None:
    """Each sentence of an error that others raise, with whatever values it has."""

    def unknown() -> list[str]:
        speak("de")
        raised = (
            (node.lineno, sample_of(argument))
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
            for argument in node.exc.args[:1]
        )
        return [f"{line}: {text}" for line, text in raised if " " in text and as_told(text) == text]

    wrong = contextvars.copy_context().run(unknown)
    assert [text for text in wrong if text.partition(": ")[2] not in NOT_ON_PAGES] == []


def sample_of(node: ast.expr) -> str:
    """A text with something in the places of its values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "7" for part in node.values)
        return "".join(map(str, parts))
    return ""
