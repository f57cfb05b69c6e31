"""By what the emails of an erasure are found, and the webhooks in the quarantine."""

from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.errors import MailroomError
from app.models.erasure import ErasedBy
from app.models.fit import fit_text
from app.retention.mentions import is_about, pattern_of

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LONGEST_SENDER = 320
LONGEST_TICKET = 64
# Emails whose sender or ticket nobody knows are few, and each is read.
LONGEST_SEARCH_SECONDS = 3_600.0

# No order, which would sort all of a sender for each batch.
FIND = {
    ErasedBy.SENDER: """
SELECT id FROM incoming_emails WHERE lower(from_email) = lower($1) LIMIT $2
""",
    ErasedBy.TICKET: "SELECT id FROM incoming_emails WHERE zendesk_ticket_id = $1 LIMIT $2",
    ErasedBy.EMAIL: "SELECT id FROM incoming_emails WHERE id = $1::uuid LIMIT $2",
}
_TEXTS = """erased_at IS NULL AND (
    raw_payload::text ~* $1 OR raw_body_text ~* $1 OR raw_body_html ~* $1
    OR encode(original_body, 'escape') ~* $1
)"""
FIND_UNREADABLE = {
    ErasedBy.SENDER: f"""
SELECT id FROM incoming_emails WHERE lower(from_email) = '' AND {_TEXTS} LIMIT $2
""",  # noqa: S608 - a constant
    ErasedBy.TICKET: f"""
SELECT id FROM incoming_emails WHERE zendesk_ticket_id = '' AND {_TEXTS} LIMIT $2
""",  # noqa: S608 - a constant
}
# Those that may be meant: PostgreSQL reads the bodies, and what is left is read here. It sees bytes
# beyond ASCII as octal escapes, and what is compressed or in UTF-16 not at all.
FIND_REFUSED = r"""
SELECT id FROM quarantined_webhooks
WHERE $2 OR headers::text ~* $1 OR detail ~* $1 OR encode(body, 'escape') ~* $1
    OR position('\x00'::bytea IN body) > 0 OR substring(body FROM 1 FOR 2) = '\x1f8b'::bytea
"""
REFUSED = """
SELECT body, coalesce(headers::text, '') || ' ' || detail AS others
FROM quarantined_webhooks WHERE id = $1
"""


class CriterionError(MailroomError):
    """By this, nothing can be erased."""


@attrs.frozen
class Criterion:
    """What is to be erased."""

    kind: ErasedBy
    value: str = attrs.field(repr=False)

    @classmethod
    def sender(cls, address: str) -> "Criterion":
        """All emails of an address, in upper or lower case.

        Raises:
            CriterionError: no email can have it.
        """
        text = address.strip()
        if not text or text != fit_text(text) or len(text) > LONGEST_SENDER:
            raise CriterionError(
                f"the sender has to be an address of 1 to {LONGEST_SENDER} characters, as the "
                "emails name it"
            )
        return cls(ErasedBy.SENDER, text)

    @classmethod
    def ticket(cls, ticket_id: str) -> "Criterion":
        """All emails of a ticket.

        Raises:
            CriterionError: no email can have it.
        """
        text = ticket_id.strip()
        if not text or text != fit_text(text) or len(text) > LONGEST_TICKET:
            raise CriterionError(
                f"the ticket has to be its number at Zendesk, of 1 to {LONGEST_TICKET} characters"
            )
        return cls(ErasedBy.TICKET, text)

    @classmethod
    def email(cls, email_id: UUID) -> "Criterion":
        """One email."""
        return cls(ErasedBy.EMAIL, str(email_id))


async def find_emails(pool: Pool, criterion: Criterion, limit: int) -> list[UUID]:
    """Emails that say themselves that they are meant."""
    rows = await pool.fetch(FIND[criterion.kind], criterion.value, limit)
    return [row["id"] for row in rows]


async def find_unreadable(pool: Pool, criterion: Criterion, limit: int) -> list[UUID]:
    """Emails that nobody could read, or whose sender nobody knows, with the address or the ticket
    somewhere in them."""
    if criterion.kind is ErasedBy.EMAIL:
        return []
    rows = await pool.fetch(
        FIND_UNREADABLE[criterion.kind],
        pattern_of(criterion.kind, criterion.value),
        limit,
        timeout=LONGEST_SEARCH_SECONDS,
    )
    return [row["id"] for row in rows]


async def find_refused(pool: Pool, criterion: Criterion) -> list[UUID]:
    """Webhooks in the quarantine. It is bounded, so each is looked at; here one at a time, since
    its body may be large."""
    kind, value = criterion.kind, criterion.value
    if kind is ErasedBy.EMAIL:
        return []
    found = []
    for row in await pool.fetch(
        FIND_REFUSED, pattern_of(kind, value), not value.isascii(), timeout=LONGEST_SEARCH_SECONDS
    ):
        refused = await pool.fetchrow(REFUSED, row["id"])
        if refused and is_about(kind, value, refused["body"], refused["others"]):
            found.append(row["id"])
    return found
