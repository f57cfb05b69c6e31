"""What the jobs API takes and gives."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import attrs
from litestar.openapi.spec import Example
from litestar.params import Parameter

from app.models.incoming_email import ProcessingStatus, SyncStatus

EXAMPLE_ID = "019abcde-0000-7000-8000-000000000001"


def about(description: str, example: object = None) -> Any:
    """How a field is told of in the API's description."""
    examples = None if example is None else [Example(value=example)]
    return Parameter(description=description, examples=examples)


@attrs.frozen(kw_only=True)
class JobSummary:
    """An email and how far its job is."""

    id: Annotated[UUID, about("The id that the webhook's answer gave", EXAMPLE_ID)]
    status: Annotated[ProcessingStatus, about("Where it stands", "failed")]
    ticket_id: Annotated[str, about("Zendesk's ticket", "35436")]
    from_email: Annotated[str, about("The sender's address", "erika@example.com")]
    from_name: str | None
    subject: Annotated[str, about("The subject", "Wo bleibt mein Päckchen?")]
    received_at: datetime
    created_at: Annotated[datetime, about("When it was stored")]
    queued_at: Annotated[datetime | None, about("When it was last handed to the broker")]
    started_at: Annotated[datetime | None, about("When a worker last claimed it")]
    completed_at: Annotated[datetime | None, about("When it became completed or failed")]
    next_attempt_at: Annotated[datetime | None, about("It is not tried before")]
    retry_count: Annotated[int, about("Retries so far", 5)]
    error: Annotated[str | None, about("Why it is failed", "ConnectionError: the CRM is away")]
    sync_status: Annotated[SyncStatus, about("Where its delivery stands", "failed")]
    sync_error: Annotated[
        str | None, about("Why the last try to deliver it failed", "the receiver answered 503")
    ]
    sync_retry_count: Annotated[int, about("Tries to deliver this result that failed", 3)]
    sync_next_attempt_at: Annotated[datetime | None, about("It is not delivered before")]
    synced_at: Annotated[datetime | None, about("When the receiver took it the last time")]


@attrs.frozen(kw_only=True)
class JobPage:
    """A page of the list, the newest received first."""

    items: list[JobSummary]
    next_cursor: Annotated[
        str | None, about("Send it as `cursor` to get the next page; null: this is the last")
    ]


@attrs.frozen(kw_only=True)
class JobEvent:
    """Something that happened to an email."""

    at: datetime
    what: Annotated[str, about("In words", "attempt 1: ConnectionError: the CRM is away")]


@attrs.frozen(kw_only=True)
class JobDetail:
    """An email with its content and its whole story."""

    job: JobSummary
    events: Annotated[list[JobEvent], about("What happened to it, the oldest first")]
    next_step: Annotated[str, about("What happens next", "nothing, until an operator retries it")]
    next_at: Annotated[datetime | None, about("When that happens at the latest, where known")]
    body_text: str | None
    body_html: Annotated[str | None, about("As it was sent: not safe to show in a browser")]
    cleaned_body: Annotated[str | None, about("The handler's readable text")]
    extracted_data: Annotated[Any, about("The handler's result")]
    attachments: Annotated[Any, about("A list of objects with at least a `url`")]


@attrs.frozen(kw_only=True)
class StateCount:
    """How many emails are in a state."""

    emails: int
    oldest_received_at: datetime | None


@attrs.frozen(kw_only=True)
class RetryRequest:
    """How an email is to be retried."""

    force: Annotated[bool, about("Also if it is completed", False)] = False


@attrs.frozen(kw_only=True)
class BulkRetryRequest:
    """Which failed emails are to be retried; all that is given has to hold."""

    ticket_id: str | None = None
    from_email: Annotated[str | None, about("The whole address")] = None
    subject: Annotated[str | None, about("A part of it")] = None
    error: Annotated[str | None, about("A part of why they failed", "ConnectionError")] = None
    received_from: datetime | None = None
    received_until: Annotated[datetime | None, about("Exclusive")] = None
    failed_from: datetime | None = None
    failed_until: Annotated[datetime | None, about("Exclusive")] = None
    dry_run: Annotated[bool, about("Count them only", True)] = True


@attrs.frozen(kw_only=True)
class BulkRetryAnswer:
    """How many emails were meant and how many are queued again."""

    matched: int
    retried: Annotated[int, about("0 in a dry run", 0)]
