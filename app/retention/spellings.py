"""Other ways in which emails spell the sender that an erasure is about: with a display name, with a
domain in the other of its two forms (RFC 3490), or in the other form of Unicode."""

import contextlib
import re
import unicodedata

from app.models.erasure import ErasedBy
from app.retention.criteria import LONGEST_SEARCH_SECONDS, Criterion, Pool

MOST_FOUND = 100

# Each email's sender is read: no index knows parts of it. What is quick to compare comes first.
FIND = """
SELECT DISTINCT from_email FROM incoming_emails
WHERE lower(from_email) LIKE ANY($1::text[]) AND lower(from_email) <> lower($2)
    AND from_email ~* $3
LIMIT $4
"""


async def find_other_spellings(pool: Pool, criterion: Criterion) -> list[str]:
    """Senders of emails that are likely the one who is meant, and that the criterion does not find;
    none where it names no sender."""
    if criterion.kind is not ErasedBy.SENDER:
        return []
    forms = _forms(criterion.value)
    patterns = ["%" + re.sub(r"[%_\\]", r"\\\g<0>", form) + "%" for form in forms]
    # Not a piece of a longer address.
    whole = rf"(?<![\w.+-])(?:{'|'.join(map(re.escape, forms))})(?![\w-]|\.\w)"
    rows = await pool.fetch(
        FIND, patterns, criterion.value, whole, MOST_FOUND, timeout=LONGEST_SEARCH_SECONDS
    )
    return sorted(row["from_email"] for row in rows)


def _forms(address: str) -> list[str]:
    local, at, domain = address.lower().rpartition("@")
    domains = {domain}
    # What is no domain is looked for as it is.
    with contextlib.suppress(UnicodeError):
        domains.add(unicodedata.normalize("NFC", domain).encode("idna").decode("ascii"))
    with contextlib.suppress(UnicodeError):
        domains.add(domain.encode("ascii").decode("idna"))
    return sorted(
        {
            unicodedata.normalize(form, f"{local}{at}{name}")
            for name in domains
            for form in ("NFC", "NFD")
        }
    )
