"""What the field of a search offers to complete: values of states, and what there is lately."""

import re
from collections import Counter
from collections.abc import Iterable

from app.api.search_text import HANDLER_RESULT, QUALIFIERS
from app.jobs.transitions.common import Database
from app.models.fit import read_json
from app.models.incoming_email import ProcessingStatus, SyncStatus

# Newest emails that are looked at, and what is offered of them.
LOOKED_AT = 500
OFFERED = 20

NEWEST = """
SELECT split_part(lower(from_email), '@', 2) AS domain FROM incoming_emails
ORDER BY received_at DESC, id DESC LIMIT $1
"""
FAILED = """
SELECT left(processing_error, 200) AS error FROM incoming_emails
WHERE processing_status = 'failed' ORDER BY received_at DESC LIMIT $1
"""
# Handlers may return nothing, or much, for all emails: so many are looked at, and no more.
# What is stored in many bytes is not even read for its length.
RESULTS = """
SELECT result::text FROM (
    SELECT extracted_data AS result, received_at FROM incoming_emails
    WHERE processing_status = 'completed' ORDER BY received_at DESC LIMIT 100
) AS newest
WHERE pg_column_size(result) < 10000 AND length(result::text) < 10000
ORDER BY received_at DESC LIMIT 20
"""

# What is before the first colon of an error is its kind, where it is one word.
_KIND = re.compile(r"[A-Za-z_][\w.]*(?=:)")
_VALUE = re.compile(r"[\w.@-]+")

VALUES = {
    **{f"{name}:": [] for name in QUALIFIERS},
    "status:": [str(status) for status in ProcessingStatus],
    "sync:": [str(status) for status in SyncStatus],
    "has:": ["attachment"],
}


async def find_values(database: Database, *, with_results: bool) -> dict[str, list[str]]:
    """What may follow a qualifier, the commonest first, by the newest emails.

    Args:
        with_results: also what the handler returned.
    """
    domains = [row["domain"] for row in await database.fetch(NEWEST, LOOKED_AT)]
    errors = [row["error"] or "" for row in await database.fetch(FAILED, LOOKED_AT)]
    kinds = [found[0].rpartition(".")[2] for error in errors if (found := _KIND.match(error))]
    rows = await database.fetch(RESULTS) if with_results else []
    results = [read_json(row["result"]) for row in rows]
    values = {"from:": _commonest(domains), "error:": _commonest(kinds)}
    for result in results:
        for key, value in result.items() if isinstance(result, dict) else ():
            if _VALUE.fullmatch(key) and isinstance(value, str) and len(value) <= OFFERED:
                values.setdefault(f"{HANDLER_RESULT}{key}:", []).append(value)
    return {name: _commonest(found) for name, found in values.items()}


def _commonest(values: Iterable[str]) -> list[str]:
    # What would need quotation marks is left to be typed.
    counts = Counter(value for value in values if _VALUE.fullmatch(value))
    return [value for value, _ in counts.most_common(OFFERED)]
