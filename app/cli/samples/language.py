"""What customers of a shop write, in the languages of the demo corpus; the texts are in the TOML
files beside this one."""

import tomllib
from importlib.resources import files
from typing import Any

import attrs


def _texts(values: list[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True)
class Topic:
    """What an email is about. A letter has one of the openings and one of the details."""

    tag: str
    emoji: str
    subjects: tuple[str, ...] = attrs.field(converter=_texts)
    openings: tuple[str, ...] = attrs.field(converter=_texts)
    details: tuple[str, ...] = attrs.field(converter=_texts)

    @property
    def automatic(self) -> bool:
        """Whether a machine wrote it: it attaches nothing and does not chat."""
        return self.tag == "out_of_office"


def _topics(tables: list[dict[str, Any]]) -> tuple[Topic, ...]:
    return tuple(Topic(**table) for table in tables)


@attrs.frozen(kw_only=True, eq=False)
class Language:
    """All that differs between the languages."""

    tag: str
    first_names: tuple[str, ...] = attrs.field(converter=_texts)
    last_names: tuple[str, ...] = attrs.field(converter=_texts)
    products: tuple[str, ...] = attrs.field(converter=_texts)
    greetings: tuple[str, ...] = attrs.field(converter=_texts)
    closings: tuple[str, ...] = attrs.field(converter=_texts)
    signatures: tuple[str, ...] = attrs.field(converter=_texts)
    asides: tuple[str, ...] = attrs.field(converter=_texts)
    stories: tuple[str, ...] = attrs.field(converter=_texts)
    """What makes a long email long."""
    answers: tuple[str, ...] = attrs.field(converter=_texts)
    """What support wrote before, where an email quotes it."""
    questions: tuple[str, ...] = attrs.field(converter=_texts)
    """What the customer wrote before that."""
    files: tuple[str, ...] = attrs.field(converter=_texts)
    topics: tuple[Topic, ...] = attrs.field(converter=_topics)
    wrote: str
    reply: str
    day: str
    amount: str
    phone: str


def load_language(name: str) -> Language:
    """Read the language of a file of this folder, such as `german`."""
    text = (files("app.cli.samples") / f"{name}.toml").read_text(encoding="utf-8")
    return Language(**tomllib.loads(text))
