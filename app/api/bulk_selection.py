"""Which emails a bulk action means: those that a search finds, or those that are named."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from app.api.search import SearchError
from app.api.search_text import SearchTextError, read_search
from app.bulk.asking import AskingError, Selection

MOST_IDS = 1_000


def select(
    text: str | None, ids: Sequence[UUID] = (), *, until: datetime | None = None
) -> Selection:
    """The selection.

    Args:
        text: a search, as on the page of emails; all emails where it is empty.
        ids: these emails; either they are given or the text.
        until: what was stored later is not meant; None: now.

    Raises:
        AskingError: neither is given, or both, or the search cannot be understood.
    """
    until = until or datetime.now(UTC)
    if (text is None) == (not ids):
        raise AskingError("search", "say which emails: by a search or by their ids")
    if text is None:
        if len(ids) > MOST_IDS:
            raise AskingError("ids", f"has to hold 1 to {MOST_IDS:,}")
        return Selection.of_ids(ids, until)
    parameters: list[object] = []
    try:
        condition = read_search(text).where(parameters)
    except (SearchTextError, SearchError) as wrong:
        raise AskingError("search", str(wrong)) from wrong
    return Selection(text=text.strip(), condition=condition, parameters=parameters, until=until)
