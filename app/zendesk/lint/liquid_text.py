"""The Liquid in a text: its outputs and tags, and where they stand.

Zendesk runs Ruby's Liquid, whose delimiters know nothing of quotes:
https://github.com/Shopify/liquid/blob/main/lib/liquid.rb
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise

import attrs

_OPENING = re.compile(r"\{\{|\{%")
_CLOSING = {"{{": "}}", "{%": "%}"}
# What an output or tag without an end takes up.
_UNCLOSED = re.compile(r"\{[{%][^{}\"\n]*+\}?")
_TEXT_ENDS = re.compile(r"\"\s*[,}\]]")
_ENDS = {name: re.compile(rf"\{{%-?\s*end{name}\s*-?%\}}") for name in ("comment", "raw")}
# A name and what is read of it. `-` stands within the names of fields.
_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\s*\.\s*[\w-]+\??|\s*\[[^\]]*\])*")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_NO_PATHS = frozenset(
    ("and", "or", "contains", "true", "false", "nil", "null", "blank", "empty", "in", "reversed")
)


class Kind(StrEnum):
    """What a token is."""

    OUTPUT = "output"
    TAG = "tag"
    SKIPPED = "comment or raw text"
    UNCLOSED = "without an end"


@attrs.frozen
class Token:
    """An output `{{ }}`, a tag `{% %}`, or the begin of one that has no end."""

    kind: Kind
    start: int
    end: int
    inner: str

    @property
    def name(self) -> str:
        """The first word: of a tag its name."""
        return self.inner.split(None, 1)[0] if self.inner else ""

    @property
    def rest(self) -> str:
        """What follows the first word."""
        return self.inner[len(self.name) :].strip()


@attrs.frozen
class Output:
    """An output taken apart."""

    path: str | None
    """The placeholder; None for a literal, or for what is no placeholder."""

    first: str
    """What stands before the filters."""

    filters: tuple[tuple[str, str], ...]
    """Names and arguments."""

    def has(self, name: str) -> bool:
        """Whether it goes through a filter."""
        return any(filter_name == name for filter_name, _ in self.filters)


def tokens(text: str) -> Iterator[Token]:
    """The outputs and tags of a text, in their order. Takes linear time."""
    position = 0
    last = {opening: text.rfind(closing) for opening, closing in _CLOSING.items()}
    while (opening := _OPENING.search(text, position)) is not None:
        token = _read(text, opening, last[opening.group()])
        if token.kind is Kind.TAG and token.name in _ENDS:
            end = _ENDS[token.name].search(text, token.end)
            if end is None:
                yield attrs.evolve(token, kind=Kind.UNCLOSED)
                return
            token = attrs.evolve(token, kind=Kind.SKIPPED, end=end.end())
        yield token
        position = token.end


def _read(text: str, opening: re.Match[str], last_closing: int) -> Token:
    start, begin = opening.span()
    if last_closing >= begin:
        following = _OPENING.search(text, begin)
        limit = len(text) if following is None else following.start()
        end = text.find(_CLOSING[opening.group()], begin, limit)
        inner = text[begin:end] if end >= 0 else ""
        if end >= 0 and not ("\n" in inner and _TEXT_ENDS.search(inner)):
            kind = Kind.OUTPUT if opening.group() == "{{" else Kind.TAG
            return Token(kind, start, end + 2, inner.strip("-").strip())
    taken = _UNCLOSED.match(text, start)
    end = taken.end() if taken else begin
    return Token(Kind.UNCLOSED, start, end, text[begin:end].strip("} \t"))


def read_output(inner: str) -> Output:
    """Take an output apart."""
    masked = _QUOTED.sub(lambda match: "'" * len(match.group()), inner)
    places = [-1, *(index for index, one in enumerate(masked) if one == "|"), len(inner)]
    parts = [inner[before + 1 : after].strip() for before, after in pairwise(places)]
    filters = []
    for part in parts[1:]:
        name, _, arguments = part.partition(":")
        filters.append((name.strip(), arguments.strip()))
    is_path = _PATH.fullmatch(parts[0]) is not None and parts[0] not in _NO_PATHS
    return Output(_bare(parts[0]) if is_path else None, parts[0], tuple(filters))


def paths_in(expression: str) -> list[str]:
    """The placeholders that an expression reads, such as the condition of an `if`."""
    bare = _QUOTED.sub(" ", expression)
    found = (_bare(match.group()) for match in _PATH.finditer(bare))
    return [path for path in found if path not in _NO_PATHS]


def _bare(path: str) -> str:
    return re.sub(r"\s+", "", path)
