"""What event subscriptions leave behind besides emails: files that came before their email, and
what Zendesk erased."""

from enum import StrEnum

from piccolo.columns import JSON, Boolean, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class EventKind(StrEnum):
    """What Mailroom does about an event."""

    EMAIL = "email"
    """It is stored and processed."""

    ATTACHMENT = "attachment"
    """It is joined to its email."""

    ERASURE = "erasure"
    """What it names is erased."""

    RESTORE = "restore"
    """A ticket came back from the trash."""

    OTHER = "other"
    """Nothing: it is no email."""


class WaitingAttachment(Table, tablename="waiting_attachments", db=DB):
    """A file whose email has not come yet; events come in any order."""

    event_key = Varchar(length=64, primary_key=True, help_text="SHA-256 over account and event")
    account_id = Varchar(length=64)
    ticket_id = Varchar(length=64, index=True)
    comment_id = Varchar(length=64)
    is_of_opening = Boolean(default=False, help_text="Linked when its ticket was made")
    attachment = JSON(help_text="As an item of `attachment_urls`")
    created_at = Timestamptz(default=TimestamptzNow(), index=True)


class ErasureKind(StrEnum):
    """What was erased at Zendesk."""

    TICKET = "ticket"
    """For good."""

    TRASHED_TICKET = "trashed_ticket"
    """Until somebody restores it."""

    RESTORED_TICKET = "restored_ticket"
    """None: an earlier one of the ticket counts no more, whenever it comes."""

    COMMENT = "comment"
    """The text of one comment, or a part of it."""

    ATTACHMENT = "attachment"
    """One file of a comment."""


class ZendeskErasure(Table, tablename="zendesk_erasures", db=DB):
    """That something was erased, so that no replay brings it back. Ids alone."""

    event_key = Varchar(length=64, primary_key=True, help_text="SHA-256 over account and event")
    kind = Varchar(length=20)
    account_id = Varchar(length=64)
    ticket_id = Varchar(length=64, index=True)
    comment_id = Varchar(length=64, null=True, default=None)
    attachment_id = Varchar(length=64, null=True, default=None)
    happened_at = Timestamptz(default=TimestamptzNow())
    created_at = Timestamptz(default=TimestamptzNow(), index=True)
