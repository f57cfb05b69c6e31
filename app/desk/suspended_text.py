"""What is typed into the search field of suspended mail: words, and qualifiers such as
`cause:spam`. Pure: from the text to what is wanted, or to what is wrong with it in words."""

from collections.abc import Mapping
from typing import Any

from app.api.search_text import Qualifier, SearchTextError
from app.desk.typed_search import read_typed
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.zendesk.suspended.rows import Wanted


def read_suspended_search(text: str) -> Wanted:
    """The suspended mails that a text asks for.

    Raises:
        SearchTextError: says what is wrong and what exists.
    """
    words, fields = read_typed(text, SUSPENDED_QUALIFIERS)
    return Wanted(words=words, **fields)


def _yes_or_no(value: str) -> Mapping[str, Any]:
    if value not in ("yes", "no"):
        raise SearchTextError(_("archived: is yes or no, not %(value)s", value=value))
    return {"is_archived": value == "yes"}


def _id(value: str) -> Mapping[str, Any]:
    if not (value.isascii() and value.isdecimal() and len(value) < 19):
        raise SearchTextError(_("id: is Zendesk's number of it, not %(value)s", value=value))
    return {"ids": [int(value)]}


SUSPENDED_QUALIFIERS: Mapping[str, Qualifier] = {
    "cause": Qualifier("cause:spam", N_("Zendesk's name for why"), lambda value: {"cause": value}),
    "archived": Qualifier("archived:no", N_("whether it is kept in the quarantine"), _yes_or_no),
    "id": Qualifier("id:4711", N_("Zendesk's number of it"), _id),
}
