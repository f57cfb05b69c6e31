"""Words as they are indexed and as they are asked for. Pure.

An email's entry is a `tsvector` of PostgreSQL: each word with its places, and the weight that tells
where it stands. What is no word (an address as a whole, a domain) has a sign before it that no word
has. https://www.postgresql.org/docs/current/datatype-textsearch.html
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.models.fit import fit_text

# Weights: where a word stands.
SUBJECT, SENDER, TICKET, ERROR = "A", "B", "C", "D"
ANYWHERE = SUBJECT + SENDER + TICKET

HAS_ATTACHMENT = "has=attachment"

# Characters. A word is cut here, in an entry as in a question; PostgreSQL takes 2,046 bytes.
LONGEST_WORD = 100
LONGEST_ERROR = 2_000
LONGEST_VALUE = 100
# Of what a handler returned; and how deep they may lie.
MOST_VALUES = 200
DEEPEST_VALUE = 8
# With fewer letters every second word would begin so.
SHORTEST_BEGINNING = 3

# Places between two texts, so that no phrase goes from one into the next.
_GAP = 10
# Between words, where PostgreSQL sees hosts, files, paths and numbers with signs.
_SEPARATORS = "._-/:@+,;=&%#"
_LAST_PLACE = 16_383
# Chinese and Japanese set no spaces between words: each of their signs is one.
_SIGNS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W_{_SIGNS}]+")
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+|\d+")


class Entry:
    """Collects what is indexed of one email."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._whole: set[str] = set()
        self._next = 1

    def add_text(self, text: str, weight: str, *, has_names: bool = False) -> None:
        """Add the words of a text.

        Args:
            has_names: of names such as `ReadTimeout` the parts are words, too.
        """
        for word in _words(text):
            self._add(
                [word, *(_HUMP.findall(word) if has_names and word.isascii() else ())], weight
            )
        self._next += _GAP

    def add_whole(self, text: str) -> None:
        """Add something that is found as a whole only."""
        self._whole.add(text)

    def as_tsvector(self) -> str:
        """What PostgreSQL reads."""
        words = (f"{_quoted(word)}:{','.join(where)}" for word, where in self._places.items())
        return " ".join((*words, *map(_quoted, self._whole - self._places.keys())))

    def _add(self, words: Iterable[str], weight: str) -> None:
        if self._next > _LAST_PLACE:
            return
        for form in {form for word in words for form in _forms(word)}:
            self._places.setdefault(form, []).append(f"{self._next}{weight}")
        self._next += 1


def make_entry(row: Mapping[str, Any]) -> str:
    """The `tsvector` of an email, by its columns."""
    entry = Entry()
    sender = row["from_email"] or ""
    entry.add_text(row["subject"] or "", SUBJECT)
    entry.add_text(row["from_name"] or "", SENDER)
    entry.add_text(sender, SENDER)
    entry.add_text(row["zendesk_ticket_id"] or "", TICKET)
    entry.add_text((row["processing_error"] or "")[:LONGEST_ERROR], ERROR, has_names=True)
    if "@" in sender:
        entry.add_whole(of_domain(sender.rpartition("@")[2]))
    if row["has_files"]:
        entry.add_whole(HAS_ATTACHMENT)
    for keys, value in _values(row["extracted_data"]):
        entry.add_whole(of_value(keys, value))
    return entry.as_tsvector()


def of_domain(domain: str) -> str:
    """How an entry names what follows the @ of its sender."""
    return f"at={domain.lower()}"


def of_value(keys: Iterable[str], value: str) -> str:
    """How an entry names what a handler returned."""
    whole = f"{'.'.join(keys)}={value}"
    if len(whole) > LONGEST_VALUE:
        whole = hashlib.sha256(whole.encode()).hexdigest()
    return f"result={whole}"


def ask_for_text(text: str, weights: str) -> str | None:
    """The `tsquery` that finds a word, or words that follow each other; where the text ends in `*`
    all that the last is the beginning of. None where there is no word in it.

    That is asked for, and not done for each word: all words that begin so have to be put together,
    which for a common one takes PostgreSQL 25 times as long as the word alone.
    """
    words = [word.casefold()[:LONGEST_WORD] for word in _words(text)]
    if not words:
        return None
    is_beginning = text.endswith("*") and len(words[-1]) >= SHORTEST_BEGINNING
    ends = [*(weights for _ in words[:-1]), f"*{weights}" if is_beginning else weights]
    parts = [f"{_quoted(word)}:{end}" for word, end in zip(words, ends, strict=True)]
    return f"({' <-> '.join(parts)})"


def ask_for_cut_text(text: str, weights: str) -> str | None:
    """The `tsquery` that finds a text which was cut somewhere in its last word. None where no word
    is left."""
    words = _words(text)
    if words and len(words[-1]) < SHORTEST_BEGINNING:
        return ask_for_text(" ".join(words[:-1]), weights)
    return ask_for_text(f"{text}*", weights)


def ask_for_whole(text: str) -> str:
    """The `tsquery` that finds what is found as a whole only."""
    return _quoted(text)


def as_tsvector(column: str) -> str:
    """The words of a short text of a row, in SQL that an index may hold: `ask_for_text` asks for
    them with the weight of errors, which is PostgreSQL's own. They are as PostgreSQL reads them, so
    accents count."""
    parted = f"translate({column}, '{_SEPARATORS}', repeat(' ', {len(_SEPARATORS)}))"
    return f"to_tsvector('simple', left({parted}, {LONGEST_ERROR}))"


def with_humps(column: str) -> str:
    """A text with the parts of names such as `ReadTimeout` once more, in SQL."""
    return f"({column} || ' ' || regexp_replace({column}, '([a-z])([A-Z])', '\\1 \\2', 'g'))"


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text))


def _forms(word: str) -> set[str]:
    """A word in small letters, and without its accents."""
    small = word.casefold()[:LONGEST_WORD]
    if small.isascii():
        return {small}
    plain = "".join(c for c in unicodedata.normalize("NFKD", small) if not unicodedata.combining(c))
    # Of a sign that is nothing but an accent nothing would be left.
    return {small, plain[:LONGEST_WORD] or small}


def _values(data: str | None) -> list[tuple[tuple[str, ...], str]]:
    """The values in what a handler returned, as `#>>` of PostgreSQL gives them."""
    if not data:
        return []
    try:
        # Numbers are written as they were.
        found = json.loads(data, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return []
    values: list[tuple[tuple[str, ...], str]] = []
    for keys, value in _leaves(found, ()):
        if len(values) == MOST_VALUES:
            break
        values.append((tuple(map(fit_text, keys)), fit_text(value)))
    return values


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str) and keys:
        yield keys, value
    elif isinstance(value, bool) and keys:
        yield keys, "true" if value else "false"
    elif len(keys) < DEEPEST_VALUE and isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*keys, key))
    elif len(keys) < DEEPEST_VALUE and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*keys, str(index)))


def _quoted(text: str) -> str:
    doubled = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
