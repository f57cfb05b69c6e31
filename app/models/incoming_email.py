"""The `incoming_emails` table: the archive of every accepted email and the state of its job.

Columns stand in the order in which the migrations added them. Only `app.jobs.transitions` and
the Intake's INSERT write `processing_status`.
"""

from enum import StrEnum

from piccolo.columns import (
    JSON,
    JSONB,
    UUID,
    Bytea,
    Integer,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Check
from piccolo.table import Table

from app.database.engine import DB


class ProcessingStatus(StrEnum):
    """Where an email stands on its way: `received -> queued -> processing -> completed | failed`.

    A failed attempt leads from `processing` back to `queued`, and so does a worker that vanished;
    an operator's retry leads from `failed` to `queued`. `app.jobs.transitions` has every step.
    """

    RECEIVED = "received"
    """Stored durably; Zendesk was told 200. No worker has been asked yet."""

    QUEUED = "queued"
    """A message for it is in the broker; or, where `queued_at` is null, is sent at once or at
    `next_attempt_at`."""

    PROCESSING = "processing"
    """A worker holds it until `lease_expires_at`; `started_at` is the worker's fencing token."""

    COMPLETED = "completed"
    """The handler finished; its result is in `extracted_data`."""

    FAILED = "failed"
    """Given up: a permanent failure, or every retry was used. `processing_error` says why; an
    operator may retry it."""


REPAIRED = "repaired"
"""Key of `extracted_data`: what of the payload was mended, in words; handlers do not lose it."""

UNREADABLE = "unreadable"
"""Key of `extracted_data`: why the payload cannot be read. No handler is asked then."""


class Origin(StrEnum):
    """By which way an email came."""

    WEBHOOK = "webhook"
    """A trigger's call of the webhook."""

    EVENT = "event"
    """An event subscription's call of it."""

    RECOVERED = "recovered"
    """Zendesk's record of a call that was not delivered."""

    BACKFILL = "backfill"
    """Its ticket at Zendesk: no call brought it."""


class SyncStatus(StrEnum):
    """Where the delivery of a finished email to the user's own system stands:
    `pending -> synced | failed`; `app.sync.transitions` has every step."""

    PENDING = "pending"
    """To be delivered, at `sync_next_attempt_at` at the earliest; or a worker does so now."""

    SYNCED = "synced"
    """The receiver took the result whose number is `sync_version`."""

    FAILED = "failed"
    """Given up: every try was used. `sync_error` says why."""

    NOT_APPLICABLE = "not_applicable"
    """Nothing is to be delivered: it has not ended, or nobody was configured then."""


class IncomingEmail(Table, tablename="incoming_emails", db=DB):
    """One inbound email as Zendesk's webhook delivered it."""

    id = UUID(primary_key=True, default=UUID4())
    zendesk_ticket_id = Varchar(length=64, help_text="Zendesk's number of the ticket")
    zendesk_webhook_id = Varchar(
        length=255,
        null=True,
        default=None,
        index=True,
        help_text="`webhook_id` of the payload. Not unique: it is often set to a constant",
    )
    from_email = Varchar(length=320, help_text="Sender, as the payload names it")
    from_name = Varchar(length=255, null=True, default=None)
    subject = Varchar(length=998, help_text="RFC 5322 allows 998 characters a line")
    raw_body_html = Text(null=True, default=None)
    raw_body_text = Text(null=True, default=None)
    cleaned_body = Text(null=True, default=None, help_text="Readable text, set by the handler")
    extracted_data = JSON(null=True, default=None, help_text="What the handler returned")
    processing_status = Varchar(
        length=20,
        default=ProcessingStatus.RECEIVED,
        choices=ProcessingStatus,
        help_text=(
            "received: stored, no worker asked yet. queued: waiting in the broker, or for its "
            "next attempt. processing: a worker holds it. completed: the handler finished. "
            "failed: given up, see processing_error"
        ),
    )
    processing_error = Text(null=True, default=None, help_text="Why it is failed")
    received_at = Timestamptz(
        default=TimestamptzNow(), help_text="When the email came, by the payload or our clock"
    )
    processed_at = Timestamptz(null=True, default=None, help_text="When the handler finished")
    created_at = Timestamptz(default=TimestamptzNow(), help_text="When the row was stored")
    updated_at = Timestamptz(default=TimestamptzNow())

    sync_status = Varchar(
        length=20,
        default=SyncStatus.NOT_APPLICABLE,
        choices=SyncStatus,
        help_text="not_applicable until a system to deliver to is configured",
    )
    sync_error = Text(null=True, default=None, help_text="Why the last try failed")
    sync_retry_count = Integer(default=0, help_text="Tries of this result that failed")
    idempotency_key = Varchar(
        length=64,
        null=True,
        default=None,
        unique=True,
        help_text="SHA-256 over the delivery's id and the content",
    )

    started_at = Timestamptz(
        null=True, default=None, help_text="When the last claim was made; its fencing token"
    )
    completed_at = Timestamptz(
        null=True, default=None, help_text="When it became completed or failed"
    )
    retry_count = Integer(default=0, help_text="Retries so far")
    attachment_urls = JSON(
        null=True, default=None, help_text="[{url, filename, content_type, size, ...}]"
    )

    raw_payload = JSON(
        null=True,
        default=None,
        help_text="The payload as it came; a JSON string where PostgreSQL takes it only so",
    )
    delivery_signature = Varchar(length=64, null=True, default=None, unique=True)
    queued_at = Timestamptz(
        null=True, default=None, help_text="When it was last handed to the broker"
    )
    claims = Integer(default=0, help_text="How often a worker took it since the last fresh start")
    next_attempt_at = Timestamptz(null=True, default=None, help_text="Not to be claimed before")
    lease_expires_at = Timestamptz(null=True, default=None)
    attempt_errors = JSONB(
        default="[]",
        help_text=(
            "[{at, attempt, error, started_at, worker, next_attempt_at}], oldest first; attempt 0 "
            "is what happened besides the attempts"
        ),
    )
    claimed_by = Varchar(
        length=255, null=True, default=None, help_text="The worker that holds it, or held it last"
    )
    lost_claims = Integer(
        default=0,
        help_text="Claims whose worker vanished, since the last fresh start",
    )
    claim_token = UUID(
        null=True, default=None, help_text="Of the last claim: how a worker knows its own again"
    )

    # Secret to Piccolo: what its admin shows has to be UTF-8.
    original_body = Bytea(
        null=True,
        default=None,
        secret=True,
        help_text="The bytes as they came, where a person mended them",
    )

    zendesk_account_id = Varchar(
        length=64, null=True, default=None, help_text="Of an event subscription's event"
    )
    zendesk_comment_id = Varchar(
        length=64, null=True, default=None, help_text="The comment that it is, where events tell"
    )
    erased_at = Timestamptz(
        null=True, default=None, help_text="When its content was erased, because Zendesk did"
    )

    # Of the delivery. Only `app.sync` writes these, and its part of the UPDATE that ends a job.
    sync_version = Integer(
        default=0, help_text="Number of its result: each end of its job makes a new one"
    )
    sync_next_attempt_at = Timestamptz(
        null=True, default=None, help_text="Not to be delivered before"
    )
    sync_token = UUID(
        null=True, default=None, help_text="Of the delivery that is under way; its fencing token"
    )
    sync_lease_expires_at = Timestamptz(null=True, default=None)
    synced_at = Timestamptz(
        null=True, default=None, help_text="When its receiver took it the last time"
    )

    bodies_removed_at = Timestamptz(
        null=True, default=None, help_text="When its texts were removed, since they were old enough"
    )

    origin = Varchar(
        length=20, default=Origin.WEBHOOK, help_text="webhook, event, recovered or backfill"
    )

    signed_at = Timestamptz(
        null=True, default=None, help_text="When Zendesk signed it, by Zendesk's clock"
    )

    check_processing_status = Check(
        "processing_status IN ('received', 'queued', 'processing', 'completed', 'failed')"
    )
    check_sync_status = Check("sync_status IN ('pending', 'synced', 'failed', 'not_applicable')")
