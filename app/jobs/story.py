"""The story of one email, for people and programs: what happened to it, and what comes next."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.jobs.story_events import (
    Event,
    event_of_entry,
    event_of_file,
    events_of_email,
    last_delivery,
)
from app.jobs.transitions.common import Database
from app.models.entries import read_entries
from app.models.incoming_email import ProcessingStatus, SyncStatus
from app.settings import Settings
from app.sync.counts import find_receiver, receiver_of

SELECT_EMAIL = """
SELECT id, zendesk_ticket_id, processing_status, processing_error, received_at, created_at,
    queued_at, started_at, completed_at, next_attempt_at, lease_expires_at, retry_count, claims,
    lost_claims, claimed_by, attempt_errors, sync_status, sync_error, sync_retry_count,
    sync_version, sync_next_attempt_at, sync_lease_expires_at, synced_at, bodies_removed_at,
    now() AS now
FROM incoming_emails
WHERE id = $1
"""
SELECT_FILES = """
SELECT position, filename, state, reason, detail, size, tries, created_at, ended_at,
    token IS NOT NULL AS is_taken, next_attempt_at > now() AS is_later
FROM email_attachments WHERE email = $1 ORDER BY position
"""
# The newest; each is short.
MOST_ENTRIES = 1_000
SELECT_ENTRIES = """
SELECT at, kind, who, worker, attempt, text FROM email_events
WHERE email = $1 ORDER BY at DESC, id DESC LIMIT $2
"""


@attrs.frozen
class Story:
    """All that is known of an email's way so far, and what comes next."""

    id: UUID
    zendesk_ticket_id: str
    status: ProcessingStatus
    events: list[Event]
    """The oldest first."""
    next_step: str
    next_at: datetime | None
    """When the next step happens at the latest, where that is known."""


async def tell_story(database: Database, email_id: UUID, settings: Settings) -> Story | None:
    """The story of an email; None where there is no such email."""
    row = await database.fetchrow(SELECT_EMAIL, email_id)
    if row is None:
        return None
    files = await database.fetch(SELECT_FILES, email_id)
    entries = await database.fetch(SELECT_ENTRIES, email_id, MOST_ENTRIES)
    next_step, next_at = _next_step(dict(row), settings)
    if _is_being_delivered(dict(row)):
        next_step, next_at = _next_of_delivery(dict(row), await _what_holds_up(database, settings))
    return Story(
        id=row["id"],
        zendesk_ticket_id=row["zendesk_ticket_id"],
        status=ProcessingStatus(row["processing_status"]),
        events=sorted(
            [
                *events_of_email(dict(row)),
                *map(event_of_file, files),
                *map(event_of_entry, reversed(entries)),
                *last_delivery(row["synced_at"], entries),
            ],
            key=lambda event: event.at,
        ),
        next_step=next_step,
        next_at=next_at,
    )


def _next_step(row: dict[str, Any], settings: Settings) -> tuple[str, datetime | None]:
    match ProcessingStatus(row["processing_status"]):
        case ProcessingStatus.RECEIVED:
            return _("a worker's Dispatcher queues it, the oldest email first"), None
        case ProcessingStatus.QUEUED if _is_later(row["next_attempt_at"], row["now"]):
            if row["claims"] == 0 and row["retry_count"] == 0:
                step = _("it begins when its files are there, or without those that are not")
            elif _is_postponed(row):
                step = _(
                    "its message is sent again: a worker of it vanished, so a process takes it "
                    "only while it has no other such email in work"
                )
            else:
                step = _(
                    "retry %(retry)s of %(most)s begins",
                    retry=row["retry_count"],
                    most=settings.max_retries,
                )
            return step, row["next_attempt_at"]
        case ProcessingStatus.QUEUED if row["queued_at"] is None:
            return _("a worker's Dispatcher sends its message anew"), None
        case ProcessingStatus.QUEUED:
            lost_at = row["queued_at"] + timedelta(seconds=settings.message_lost_seconds)
            return _("a worker claims it; if none has, its message is sent again"), lost_at
        case ProcessingStatus.PROCESSING:
            step = _("its worker finishes; if it vanished, another takes over")
            return step, row["lease_expires_at"]
        case ProcessingStatus.COMPLETED:
            return _("nothing: it is done"), None
        case ProcessingStatus.FAILED:
            return _("nothing, until an operator retries it"), None


def _is_being_delivered(row: dict[str, Any]) -> bool:
    has_ended = row["processing_status"] in (ProcessingStatus.COMPLETED, ProcessingStatus.FAILED)
    return has_ended and row["sync_status"] in (SyncStatus.PENDING, SyncStatus.FAILED)


async def _what_holds_up(
    database: Database, settings: Settings
) -> tuple[str, datetime | None] | None:
    """Why nothing is delivered at all now, and until when, where that is known."""
    if not settings.delivers:
        return _("nothing is delivered, as MAILROOM_SYNC_URL and MAILROOM_SYNC are empty"), None
    receiver = await find_receiver(database, receiver_of(settings))
    if receiver is None or receiver.is_well:
        return None
    if receiver.is_paused:
        why = _("its receiver wants nothing more (410); once it is back: `mailroom sync resume`")
        return why, None
    if receiver.is_down:
        why = _("its receiver is down, and is tried by itself: `mailroom sync status` says when")
        return why, None
    return _("its receiver asked to be left alone for a while"), receiver.rests_until


def _next_of_delivery(
    row: dict[str, Any], held_up: tuple[str, datetime | None] | None
) -> tuple[str, datetime | None]:
    number = row["sync_retry_count"] + 1
    if row["sync_status"] == SyncStatus.FAILED:
        return (
            _(
                "nothing: its delivery was given up (%(why)s); `mailroom reconcile --id %(id)s "
                "--apply` has it delivered again",
                why=as_told(row["sync_error"] or ""),
                id=row["id"],
            ),
            None,
        )
    if _is_later(row["sync_lease_expires_at"], row["now"]):
        step = _(
            "try %(number)s to deliver it ends; if its worker vanished, another delivers it",
            number=number,
        )
        return step, row["sync_lease_expires_at"]
    if held_up is not None:
        why, until = held_up
        return _("it is delivered later: %(why)s", why=why), until
    if _is_later(row["sync_next_attempt_at"], row["now"]):
        step = _("try %(number)s to deliver it begins", number=number)
        return step, row["sync_next_attempt_at"]
    return _("a worker delivers it"), None


def _is_postponed(row: dict[str, Any]) -> bool:
    """Whether it waits as a suspect, and not for its retry."""
    retries = {entry.next_attempt_at for entry in read_entries(row["attempt_errors"])}
    return row["lost_claims"] > 0 and row["next_attempt_at"] not in retries


def _is_later(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment > now
