"""The `email_attachments` table: the files of emails, where each stands, and what became of it.

Only `enrolling`, `transitions`, `removing` and `expiry` of `app.attachments` write it.
"""

from enum import StrEnum

from piccolo.columns import UUID, BigInt, Boolean, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Check, Unique
from piccolo.table import Table

from app.database.engine import DB


class AttachmentState(StrEnum):
    """Where a file stands: `pending -> kept | skipped | failed | flagged`; `kept -> skipped`.

    An operator's request leads from each of the last three, and from `kept` where the bytes are
    damaged, back to `pending`.
    """

    PENDING = "pending"
    """To be fetched, at `next_attempt_at` at the earliest; or a worker fetches it now."""

    KEPT = "kept"
    """Its bytes are in the store, under `storage_key`."""

    SKIPPED = "skipped"
    """Not fetched, or not kept any longer, because a limit or a rule says so. `reason` says
    which."""

    FAILED = "failed"
    """Given up: it cannot be had, or every try was used. `reason` says why."""

    FLAGGED = "flagged"
    """Kept out, because it was found to be harmful."""


NOT_KEPT = (AttachmentState.FAILED, AttachmentState.SKIPPED, AttachmentState.FLAGGED)


class EmailAttachment(Table, tablename="email_attachments", db=DB):
    """One file of an email, as the email's `attachment_urls` names it."""

    id = UUID(primary_key=True, default=UUID4())
    email = UUID(
        default=None, help_text="The email. No foreign key: each would lock the email's row"
    )
    position = Integer(default=0, help_text="Its place among the email's files, from 0; it stays")
    url = Text(default="", secret=True, help_text="As given; it may hold a token")
    filename = Text(null=True, default=None, help_text="As given; never a path")
    claimed_content_type = Text(null=True, default=None, help_text="As the email says")
    content_type = Text(null=True, default=None, help_text="As found in its bytes")
    claimed_size = BigInt(null=True, default=None, help_text="Bytes, as the email says")
    size = BigInt(null=True, default=None, help_text="Bytes, as counted")
    sha256 = Varchar(
        length=64, null=True, default=None, help_text="Hex. Of a pending one: about to be stored"
    )
    storage_key = Text(null=True, default=None, help_text="Where the store has its bytes")
    is_inline = Boolean(default=False, help_text="Shown within the email's text")
    state = Varchar(length=20, default=AttachmentState.PENDING, choices=AttachmentState)
    reason = Varchar(length=40, null=True, default=None, help_text="Why it is not kept")
    detail = Text(null=True, default=None, help_text="More about the reason, for operators")
    tries = Integer(default=0, help_text="How often it was begun since the last fresh start")
    next_attempt_at = Timestamptz(
        default=TimestamptzNow(),
        help_text="Not to be begun before; while a worker fetches it, the end of its lease",
    )
    token = UUID(null=True, default=None, help_text="Of the worker that fetches it now")
    created_at = Timestamptz(default=TimestamptzNow())
    fetched_at = Timestamptz(null=True, default=None, help_text="When its bytes were stored")
    ended_at = Timestamptz(null=True, default=None, help_text="When it last left `pending`")

    check_attachment_state = Check("state IN ('pending', 'kept', 'skipped', 'failed', 'flagged')")
    unique_position = Unique(["email", "position"])


class AttachmentErasure(Table, tablename="attachment_erasures", db=DB):
    """Bytes that have to leave the store, because an email or a file was erased; a worker removes
    them, unless another email has the same."""

    sha256 = Varchar(length=64, primary_key=True, default="")
    asked_at = Timestamptz(default=TimestamptzNow())
