"""What is typed into the search field of the quarantine: words, and qualifiers such as
`reason:signature`. Pure: from the text to what is wanted, or to what is wrong with it in words."""

from collections.abc import Mapping

from app.api.search_text import Qualifier
from app.desk.typed_search import one_of, read_typed
from app.intake.refusals import Wanted
from app.models.quarantined_webhook import RefusalReason


def read_quarantine_search(text: str) -> Wanted:
    """The refused webhooks that a text asks for.

    Raises:
        SearchTextError: says what is wrong and what exists.
    """
    words, fields = read_typed(text, QUARANTINE_QUALIFIERS)
    return Wanted(words=words, **fields)


QUARANTINE_QUALIFIERS: Mapping[str, Qualifier] = {
    "reason": Qualifier(
        "reason:signature", ", ".join(RefusalReason), one_of("reason", "reason", RefusalReason)
    ),
}
