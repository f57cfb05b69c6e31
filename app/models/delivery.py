"""The tables of delivery beside `incoming_emails`, whose `sync_` columns tell of each email: how
the receiver stands, and what it is told besides the ends of emails.

Only `app.sync` writes them.
"""

from enum import StrEnum

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Check
from piccolo.table import Table

from app.database.engine import DB
from app.models.incoming_email import SyncStatus


class BreakerState(StrEnum):
    """Whether a receiver is delivered to."""

    CLOSED = "closed"
    """It is."""

    OPEN = "open"
    """It failed many times in a row, and is left alone until `probe_at`."""

    HALF_OPEN = "half_open"
    """One process of all delivers one email to see whether it is back."""


class DeliveryKind(StrEnum):
    """What happened to an email; the `type` of what is delivered."""

    COMPLETED = "email.completed"
    FAILED = "email.failed"
    ERASED = "email.erased"


class SyncReceiver(Table, tablename="sync_receivers", db=DB):
    """Whom is delivered to, and its breaker: one row for all workers."""

    name = Varchar(length=300, primary_key=True, default="", help_text="Holds no secret")
    state = Varchar(length=20, default=BreakerState.CLOSED, choices=BreakerState)
    failures = Integer(default=0, help_text="In a row, none having succeeded between")
    reason = Text(null=True, default=None, help_text="Of the last failure")
    opened_at = Timestamptz(null=True, default=None)
    probes = Integer(default=0, help_text="That failed, since it opened")
    probe_at = Timestamptz(
        null=True, default=None, help_text="Next probe; while one is made, when it counts as lost"
    )
    probe_token = UUID(null=True, default=None, help_text="Of the probe that is being made")
    rests_until = Timestamptz(null=True, default=None, help_text="As it asked by Retry-After")
    paused_at = Timestamptz(
        null=True, default=None, help_text="When it said that it wants nothing more (410)"
    )
    pause_reason = Text(null=True, default=None)
    updated_at = Timestamptz(default=TimestamptzNow())

    check_breaker_state = Check("state IN ('closed', 'open', 'half_open')")


class SyncEvent(Table, tablename="sync_events", db=DB):
    """What is delivered of an email besides its ends, such as that it was erased. It is delivered
    as an email is, by columns of the same names."""

    id = UUID(primary_key=True, default=UUID4())
    kind = Varchar(length=40, default="", help_text="`type` of what is delivered")
    email = UUID(default=None, help_text="Its row may be gone")
    sync_version = Integer(default=0, help_text="That of the email's last result")
    created_at = Timestamptz(default=TimestamptzNow(), help_text="When it happened")
    sync_status = Varchar(length=20, default=SyncStatus.PENDING, choices=SyncStatus)
    sync_error = Text(null=True, default=None)
    sync_retry_count = Integer(default=0)
    sync_next_attempt_at = Timestamptz(null=True, default=TimestamptzNow())
    sync_token = UUID(null=True, default=None)
    sync_lease_expires_at = Timestamptz(null=True, default=None)
    synced_at = Timestamptz(null=True, default=None)

    check_event_sync_status = Check(
        "sync_status IN ('pending', 'synced', 'failed', 'not_applicable')"
    )
