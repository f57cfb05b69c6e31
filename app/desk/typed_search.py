"""What is typed into the search field of a list beside that of the emails: words, and qualifiers
such as `who:olga`. Pure: from the text to words and fields, or to what is wrong with it."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from app.api.search_text import PART, Qualifier, SearchTextError, check_text
from app.i18n.texts import gettext as _


def read_typed(
    text: str, qualifiers: Mapping[str, Qualifier]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The words of a text, and the fields that its qualifiers give.

    Raises:
        SearchTextError: says what is wrong and what exists.
    """
    check_text(text)
    fields: dict[str, Any] = {}
    words: list[str] = []
    for part in PART.finditer(text):
        name = part["name"]
        if name is None:
            word = (part["phrase"] if part["phrase"] is not None else part["word"]).strip()
            words += [word] if word else []
            continue
        qualifier = qualifiers.get(name.lower())
        if qualifier is None:
            known = ", ".join(f"{known}:" for known in qualifiers)
            raise SearchTextError(
                _(
                    "there is no %(name)s: to search by. There are %(known)s",
                    name=name,
                    known=known,
                )
            )
        found = qualifier.read(part["quoted"] if part["quoted"] is not None else part["value"])
        if set(found) & set(fields):
            raise SearchTextError(_("%(name)s: is given twice", name=name))
        fields |= found
    return tuple(words), fields


def one_of(field: str, key: str, kind: type[StrEnum]) -> Callable[[str], Mapping[str, Any]]:
    """Reads a value that is one of few."""

    def read(value: str) -> Mapping[str, Any]:
        try:
            return {key: kind(value.lower())}
        except ValueError:
            raise SearchTextError(
                _(
                    "%(field)s: is one of %(values)s, not %(value)s",
                    field=field,
                    values=", ".join(kind),
                    value=value,
                )
            ) from None

    return read
