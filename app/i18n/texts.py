"""Texts in the language that is spoken: `gettext`, which modules import as `_`, `ngettext`, `N_`.

A message is written in English where it is used. Values go into it by name, as `%(name)s`, so that
another language may put them in another order; a percent sign is written `%%`.
"""

from app.i18n.formats import number
from app.i18n.languages import LANGUAGES, catalogue


def gettext(message: str, /, **values: object) -> str:
    """A message in the language that is spoken, with its values."""
    return catalogue().gettext(message) % values


def ngettext(singular: str, plural: str, count: int, /, **values: object) -> str:
    """The message for a number of things. `%(num)s` is the number, unless `num` is given."""
    chosen = catalogue().ngettext(singular, plural, count)
    return chosen % {"num": number(count), **values}


def in_each_language(message: str) -> dict[str, str]:
    """A message without values by language, for what chooses among them itself."""
    return {language: catalogue(language).gettext(message) for language in LANGUAGES}


def N_(message: str) -> str:  # noqa: N802 - so gettext's tools know it
    """Marks a text that is kept in a constant: `gettext` translates it where it is shown."""
    return message
