"""What one look at the table for the overview brought."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.alerts.alarms import OpenAlarm
from app.alerts.canary import Standing as CanaryStanding
from app.intake.secret_uses import SecretUse
from app.jobs.chore_rows import Standing
from app.jobs.heartbeat import SILENT_AFTER
from app.models.incoming_email import ProcessingStatus
from app.sync.counts import Deliveries
from app.zendesk.gaps import Gaps
from app.zendesk.outage import Outage


@attrs.frozen
class OldestWaiting:
    """The email that came first of those that no worker holds yet."""

    id: UUID
    age: timedelta


@attrs.frozen
class Quarantined:
    """Refused webhooks that wait for somebody; at most COUNTED_AT_MOST are counted."""

    all: int
    signed: int
    """Those that Zendesk signed, so each is an email with a fault."""


@attrs.frozen
class Addresses:
    """What is known of Zendesk's addresses, and of signed webhooks that came from others."""

    ranges: int
    age: timedelta
    outside: int
    outside_ago: timedelta | None
    hidden: int
    """Those whose sender a proxy hides."""


@attrs.frozen
class SuspendedMail:
    """What Zendesk holds back; at most COUNTED_AT_MOST are counted."""

    all: int
    archived: int
    """Those that are kept in the quarantine, too."""


@attrs.frozen
class Files:
    """The files of emails; at most COUNTED_AT_MOST of each are counted."""

    pending: int
    lag: timedelta
    """How long the file is due that waits longest for a worker."""
    failed_today: int
    flagged_today: int


@attrs.frozen
class Task:
    """An email that a worker has in hand."""

    id: UUID
    subject: str
    lasts: timedelta


@attrs.frozen
class Worker:
    """A worker process that was heard of lately."""

    name: str
    threads: int
    started_at: datetime
    silence: timedelta
    """Time since its last sign of life."""

    in_work: int
    tasks: Sequence["Task"] = ()
    """What it does now, the longest first; not all, where it is much."""

    @property
    def is_alive(self) -> bool:
        return self.silence < SILENT_AFTER


@attrs.frozen
class Failures:
    """Emails that failed with the same error."""

    failure: str
    """What their errors have in common, as `app.api.search.FAILURE` makes it."""

    emails: int
    latest_at: datetime


@attrs.frozen
class Run:
    """One run of the handler."""

    id: UUID
    status: ProcessingStatus
    took: timedelta


@attrs.frozen
class Figures:
    """One look at the table."""

    at: datetime
    alarms: list[OpenAlarm]
    gaps: Gaps
    """How the two lines behind the webhook stand."""

    watch: str | None
    """What the watch over silence said last, in a sentence."""
    states: dict[ProcessingStatus, int]
    """Emails in each state but `completed`; at most COUNTED_AT_MOST are counted."""

    waiting_for_retry: int
    """Those that failed an attempt and wait for the next; at most COUNTED_AT_MOST are counted."""

    quarantined: Quarantined
    suspended: SuspendedMail
    addresses: Addresses | None
    secrets: Sequence[SecretUse]
    """How the signing secrets that are set are used."""
    outage: Outage
    canary: CanaryStanding | None
    """None: none was ever sent."""
    files: Files
    deliveries: Deliveries
    """At most COUNTED_AT_MOST in each state are counted."""
    failing_chores: list[Standing]
    """Several times in a row."""
    oldest_waiting: OldestWaiting | None
    workers: list[Worker]
    """Those that live, and those that vanished lately."""

    failures: list[Failures]
    longest_runs: list[Run]

    @property
    def workers_alive(self) -> int:
        return sum(worker.is_alive for worker in self.workers)
