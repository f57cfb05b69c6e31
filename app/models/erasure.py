"""Erasures that were asked for, and the tombstones that keep what was erased from coming back.

Nothing here tells whom an erasure was about, once it has ended.
"""

from enum import StrEnum

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

from app.database.engine import DB


def comment_key(account: str | None, ticket: str, comment: str | None) -> str | None:
    """The key of an email that is a comment at Zendesk; None where that is not known."""
    return f"comment {account or ''} {ticket} {comment}" if comment is not None else None


def comment_key_sql(account: str, ticket: str, comment: str) -> str:
    """The same in SQL, as the three are."""
    return f"'comment ' || coalesce({account}, '') || ' ' || {ticket} || ' ' || {comment}"


# What a key begins with that tells of which ticket an email was, and when it came: where its
# comment is not known, that keeps it from being made of the comment again.
ARRIVED = "arrived"


class ErasedBy(StrEnum):
    """By what the emails of an erasure are found."""

    SENDER = "sender"
    """Their address."""

    TICKET = "ticket"
    """Their ticket at Zendesk."""

    EMAIL = "email"
    """The id of one."""

    BULK = "bulk"
    """A bulk action, which has the same id."""

    COMMENT = "comment"
    """A comment, or a file of one, that Zendesk redacted."""


class Erasure(Table, tablename="erasures", db=DB):
    """One erasure: who asked for it, by what the emails were found, and how much is gone."""

    id = UUID(primary_key=True, default=UUID4())
    kind = Varchar(length=20, help_text="One of ErasedBy")
    criterion = Text(
        null=True, default=None, help_text="What they are found by; null as soon as it has ended"
    )
    criterion_hash = Varchar(
        length=128, help_text="scrypt with a salt of its own: who knows the address can check it"
    )
    asked_by = Varchar(length=255, help_text="A token, an operator, or Zendesk")
    asked_at = Timestamptz(default=TimestamptzNow())
    worked_at = Timestamptz(default=TimestamptzNow(), help_text="Its last sign of life")
    failures = Integer(default=0, help_text="How often a worker could not go on with it")
    last_error = Text(null=True, default=None, help_text="The kind of the last one; no text")
    ended_at = Timestamptz(null=True, default=None)
    emails = Integer(default=0, help_text="Rows that are gone, or emptied where Zendesk redacted")
    files = Integer(default=0, help_text="Of the archive")
    entries = Integer(default=0, help_text="Of their histories")
    deliveries = Integer(default=0, help_text="That were pending")
    refused = Integer(default=0, help_text="Webhooks in the quarantine, and suspended mail")
    waiting_files = Integer(default=0, help_text="Files that waited for their email")


class Tombstone(Table, tablename="tombstones", db=DB):
    """A key of an email that was erased: whatever has it is the same email again.

    A key is a hash already (`idempotency_key`, `delivery_signature`), or made of ids and a time
    alone.
    """

    key = Varchar(length=255, primary_key=True, default="")
    email = UUID(default=None, help_text="The id that the email had")
    erasure = UUID(default=None)
    created_at = Timestamptz(default=TimestamptzNow(), index=True)
