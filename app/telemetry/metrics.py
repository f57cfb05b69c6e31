"""What Mailroom counts and times, for Prometheus.

Each process counts for itself, in memory; those of `mailroom web --processes` do so in a folder
that they share. Labels come from enums alone, never from an email, so their values are few and tell
nothing about anybody. What is known of a label is made at once: Prometheus sees a rise only in a
series that it has seen before.
"""

from enum import StrEnum

from prometheus_client import Counter, Histogram, disable_created_metrics

from app.models.email_attachment import AttachmentState
from app.models.quarantined_webhook import AT_THE_WEBHOOK
from app.models.webhook_status import WebhookStatus
from app.models.zendesk_event import EventKind
from app.setting_groups.alerts import AlertWay
from app.telemetry.process_metrics import take_place

take_place()
disable_created_metrics()  # type: ignore[no-untyped-call]

UNAVAILABLE = "unavailable"
"""The result of a webhook that was answered 503."""

ENDED = tuple(state for state in AttachmentState if state is not AttachmentState.PENDING)
"""The states in which a file needs no further try."""

RESULTS = (*WebhookStatus, *AT_THE_WEBHOOK, UNAVAILABLE)


class FailureKind(StrEnum):
    """Why an attempt failed."""

    ERROR = "error"
    """The handler raised."""

    REQUESTED = "requested"
    """The handler asked for a retry."""

    PERMANENT = "permanent"
    """The handler said that no retry can help."""

    TIMEOUT = "timeout"
    """The handler did not finish in time."""

    BLOCKED = "blocked"
    """The handler blocked the event loop, and its process was ended."""

    VANISHED = "vanished"
    """Its worker vanished too often."""


class Mending(StrEnum):
    """What became of a webhook that was signed and broken."""

    REPAIRED = "repaired"
    """There was one way to read it."""

    UNREADABLE = "unreadable"
    """There was none, or more: it is stored as `failed`."""


class RescueKind(StrEnum):
    """What was lost of an email that was brought back."""

    LEASE = "lease"
    """Its worker."""

    MESSAGE = "message"
    """Its message in the broker."""


class Pruned(StrEnum):
    """What is removed when it is old enough."""

    COMPLETED = "completed"
    """Completed emails."""

    FAILED = "failed"
    """Failed emails."""

    BODIES = "bodies"
    """Texts of emails."""

    ATTACHMENTS = "attachments"
    """Files of emails."""

    EVENTS = "events"
    """Entries of their histories."""

    TOLD = "told"
    """What the receiver was told besides the ends of emails."""

    AUDIT = "audit"
    """Entries of the audit log."""

    BULK = "bulk"
    """Bulk actions that ended."""


class Sender(StrEnum):
    """Where a webhook came from."""

    INSIDE = "inside"
    """An address that Zendesk publishes."""

    OUTSIDE = "outside"
    """Another address of the internet."""

    HIDDEN = "hidden"
    """A proxy's address: the sender's is not known."""

    UNKNOWN = "unknown"
    """There is no list to compare it with."""


class BrokerUse(StrEnum):
    """What the broker was asked for."""

    SEND = "send"
    CONSUME = "consume"


WEBHOOKS = Counter("mailroom_webhooks", "Webhooks answered, by result.", ["result"])
SENDERS = Counter(
    "mailroom_webhook_senders",
    "Signed webhooks, and those refused for it, by what their sender's address is.",
    ["origin"],
)
MISDIRECTED = Counter(
    "mailroom_webhooks_misdirected", "Webhooks with a signature that came to a wrong path."
)
ACCEPT_SECONDS = Histogram(
    "mailroom_accept_duration_seconds",
    "From the first byte of a webhook to its 200.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 8),
)
BATCH_ROWS = Histogram(
    "mailroom_batch_rows",
    "Emails that shared one INSERT, duplicates too.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)

EVENTS = Counter(
    "mailroom_events",
    "Events of Zendesk's event subscriptions, by what Mailroom did about them.",
    ["kind"],
)

MENDED = Counter(
    "mailroom_mended", "Signed webhooks with broken JSON, by what became of them.", ["result"]
)

CLAIMS = Counter("mailroom_claims", "Emails that a worker claimed.")
COMPLETIONS = Counter("mailroom_completions", "Emails that became completed.")
FAILURES = Counter("mailroom_failures", "Emails that became failed, by the last failure.", ["kind"])
RETRIES = Counter("mailroom_retries", "Failed attempts that are tried again.", ["kind"])
HAND_BACKS = Counter(
    "mailroom_hand_backs", "Claims handed back untried: their worker stopped, or had no place."
)
RESCUES = Counter("mailroom_rescues", "Emails brought back, by what of them was lost.", ["kind"])
HANDLER_SECONDS = Histogram(
    "mailroom_handler_duration_seconds",
    "How long one run of the handler took, however it ended.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
BROKER_ERRORS = Counter("mailroom_broker_errors", "Errors of the broker, by its use.", ["use"])

ATTACHMENTS = Counter("mailroom_attachments", "Files of emails, by what became of them.", ["state"])
ATTACHMENT_BYTES = Counter("mailroom_attachment_bytes", "Bytes of the files that were kept.")

PRUNED = Counter(
    "mailroom_pruned", "What was removed because it was old enough, by its kind.", ["kind"]
)

ALERTS = Counter(
    "mailroom_alerts",
    "Messages about alarms, by way and by what became of them.",
    ["way", "result"],
)
for way in AlertWay:
    for result in ("told", "failed"):
        ALERTS.labels(way, result)
DELIVERIES = Counter("mailroom_deliveries", "Tries to deliver, by how they ended.", ["result"])
DELIVERY_FAILURES = Counter(
    "mailroom_delivery_failures", "Requests of deliveries that failed, by why.", ["kind"]
)
HUNG_CALLS = Counter(
    "mailroom_delivery_hung_calls",
    "Calls of MAILROOM_SYNC's function that went on after their time, and those that ended then.",
    ["state"],
)
ERASURE_FAILURES = Counter(
    "mailroom_erasure_failures", "Erasures that a worker could not bring to their ends."
)
DELIVERY_SECONDS = Histogram(
    "mailroom_delivery_seconds",
    "Time from a delivery's request to its answer.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60),
)


class HungCall(StrEnum):
    """What became of a call that took longer than it may. The difference hangs now."""

    BEGUN = "begun"
    """Its time was over, and it went on."""

    ENDED = "ended"
    """It ended after all."""


class DeliveryFailure(StrEnum):
    """Why a request of a delivery failed."""

    UNREACHED = "unreached"
    """There was no answer, or none in time."""

    BROKEN = "broken"
    """The receiver answered 5xx."""

    BUSY = "busy"
    """It gets too much at once: 408, 425, 429, 502, 504."""

    REFUSED = "refused"
    """It refused what was delivered: any other 4xx."""

    REDIRECTED = "redirected"
    """It answered with a redirect, which is not followed."""

    GONE = "gone"
    """It wants nothing more: 410."""

    FUNCTION = "function"
    """A function that delivers refused it, or asked for a retry."""


class DeliveryResult(StrEnum):
    """How a try to deliver ended."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    """It failed, and is tried again."""
    FAILED = "failed"
    """It failed, and no further try is left."""


for counter, values in (
    (DELIVERIES, DeliveryResult),
    (DELIVERY_FAILURES, DeliveryFailure),
    (WEBHOOKS, RESULTS),
    (SENDERS, Sender),
    (PRUNED, Pruned),
    (HUNG_CALLS, HungCall),
    (EVENTS, EventKind),
    (MENDED, Mending),
    (FAILURES, FailureKind),
    (RETRIES, FailureKind),
    (RESCUES, RescueKind),
    (BROKER_ERRORS, BrokerUse),
    (ATTACHMENTS, ENDED),
):
    for value in values:
        counter.labels(value)
