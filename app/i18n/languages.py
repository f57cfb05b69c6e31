"""Which languages there are, which one is spoken now, and its catalogue.

English is spoken unless somebody says otherwise, which programs, the command line and the logs
never do. A catalogue is read from its .po when it is first asked for: nothing has to be compiled.
"""

import functools
import gettext as gnu
import io
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent / "locale"
DOMAIN = "mailroom"
ENGLISH = "en"
LANGUAGES = MappingProxyType({ENGLISH: "English", "de": "Deutsch"})
"""Those that can be chosen, each by its own name."""

_spoken: ContextVar[str] = ContextVar("language", default=ENGLISH)


def speak(language: str) -> None:
    """Speak a language for the rest of this task, and in what it starts.

    Args:
        language: one of LANGUAGES.
    """
    _spoken.set(language)


def spoken() -> str:
    """The language that is spoken now, such as `de`."""
    return _spoken.get()


def catalogue(language: str | None = None) -> gnu.NullTranslations:
    """The texts of a language; of the one that is spoken now, if none is named."""
    return _catalogue(language or spoken())


def path_of(language: str) -> Path:
    """Where the texts of a language are."""
    return FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}.po"


@functools.cache
def _catalogue(language: str) -> gnu.NullTranslations:
    if language == ENGLISH:
        return gnu.NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = io.BytesIO()
    with path_of(language).open("rb") as file:
        write_mo(compiled, read_po(file, locale=language, domain=DOMAIN))
    compiled.seek(0)
    return gnu.GNUTranslations(compiled)
