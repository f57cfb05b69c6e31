"""The story of one email, for people and programs: what happened to it, and what comes next."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import attrs

from app.attachments.reasons import sentence_of
from app.jobs.transitions.common import Database
from app.jobs.transitions.keeping import MESSAGE_LOST
from app.models.email_attachment import AttachmentState
from app.models.incoming_email import ProcessingStatus
from app.settings import Settings

SELECT_EMAIL = """
SELECT id, zendesk_ticket_id, processing_status, processing_error, received_at, created_at,
    queued_at, started_at, completed_at, next_attempt_at, lease_expires_at, retry_count, claims,
    lost_claims, claimed_by, attempt_errors, now() AS now
FROM incoming_emails
WHERE id = $1
"""
SELECT_FILES = """
SELECT position, filename, state, reason, detail, size, tries, token IS NOT NULL AS is_fetched_now,
    created_at, next_attempt_at, ended_at
FROM email_attachments WHERE email = $1 ORDER BY position
"""

# Older than anything should be in its state while the workers run. What is `queued` counts from the
# moment at which a worker could have had it. Sending a message again or postponing a suspect does
# not renew that: both go on for as long as no worker comes. What is `processing` should have ended
# with its lease, and with the handler's time even if the lease is extended for ever.
SELECT_STUCK = f"""
SELECT id, processing_status, since, now() - since AS age
FROM (
    SELECT id, processing_status,
        CASE processing_status
            WHEN 'received' THEN created_at
            WHEN 'queued' THEN GREATEST(
                created_at, started_at,
                CASE WHEN lost_claims = 0 THEN next_attempt_at END,
                (
                    SELECT max(GREATEST(
                        (entry ->> 'at')::timestamptz, (entry ->> 'next_attempt_at')::timestamptz
                    ))
                    FROM jsonb_array_elements(attempt_errors) AS entry
                    WHERE entry ->> 'error' <> '{MESSAGE_LOST}'
                )
            )
            ELSE COALESCE(LEAST(lease_expires_at, started_at + $3::interval), created_at)
        END AS since
    FROM incoming_emails
    WHERE processing_status IN ('received', 'queued', 'processing')
) AS unfinished
WHERE since < now() - $1::interval
ORDER BY since
LIMIT $2
"""  # noqa: S608 - a constant


@attrs.frozen
class Event:
    """Something that happened to an email."""

    at: datetime
    what: str


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


@attrs.frozen
class Stuck:
    """An email that is older in its state than expected."""

    id: UUID
    status: ProcessingStatus
    since: datetime
    age: timedelta


async def tell_story(database: Database, email_id: UUID, settings: Settings) -> Story | None:
    """The story of an email; None where there is no such email."""
    row = await database.fetchrow(SELECT_EMAIL, email_id)
    if row is None:
        return None
    files = await database.fetch(SELECT_FILES, email_id)
    next_step, next_at = _next_step(dict(row), settings)
    return Story(
        id=row["id"],
        zendesk_ticket_id=row["zendesk_ticket_id"],
        status=ProcessingStatus(row["processing_status"]),
        events=sorted(
            [*_events(dict(row)), *map(_event_of_file, files)], key=lambda event: event.at
        ),
        next_step=next_step,
        next_at=next_at,
    )


async def find_stuck(database: Database, settings: Settings, *, limit: int) -> list[Stuck]:
    """Emails that are older in their state than they can be while workers run; the oldest first."""
    patience = timedelta(seconds=2 * max(settings.message_lost_seconds, settings.lease_seconds))
    longest_run = timedelta(seconds=settings.handler_timeout_seconds)
    rows = await database.fetch(SELECT_STUCK, patience, limit, longest_run)
    return [
        Stuck(row["id"], ProcessingStatus(row["processing_status"]), row["since"], row["age"])
        for row in rows
    ]


def _events(row: dict[str, Any]) -> list[Event]:
    events = [Event(row["created_at"], "received: stored durably, and Zendesk was told 200")]
    entries = json.loads(row["attempt_errors"])
    for entry in entries:
        attempt = f"attempt {entry['attempt']}: " if entry["attempt"] else ""
        worker = f" (by {entry['worker']})" if entry.get("worker") else ""
        events.append(
            Event(datetime.fromisoformat(entry["at"]), f"{attempt}{entry['error']}{worker}")
        )
    # The columns know the last claim only.
    begun = {
        datetime.fromisoformat(entry["started_at"]): entry["worker"] or "a worker"
        for entry in entries
        if entry.get("started_at")
    }
    if row["started_at"]:
        last = f"{row['claimed_by'] or 'a worker'}, claim {row['claims']}"
        begun.setdefault(row["started_at"], last)
    events += [Event(at, f"processing: claimed by {claim}") for at, claim in begun.items()]
    if row["queued_at"]:
        events.append(Event(row["queued_at"], "queued: its message went to the broker"))
    if row["completed_at"]:
        error = f": {row['processing_error']}" if row["processing_error"] else ""
        events.append(Event(row["completed_at"], f"{row['processing_status']}{error}"))
    return events


def _event_of_file(row: "asyncpg.Record") -> Event:
    name = f" ({row['filename']})" if row["filename"] else ""
    why = ""
    if row["reason"] is not None:
        detail = f" [{row['detail']}]" if row["detail"] else ""
        why = f": {row['reason']}. {sentence_of(row['reason'])}{detail}"
    file = f"file {row['position']}{name}"
    match AttachmentState(row["state"]):
        case AttachmentState.KEPT:
            return Event(row["ended_at"], f"{file}: kept, {row['size']} bytes")
        case AttachmentState.PENDING:
            tries = f", {row['tries']} tries so far" if row["tries"] else ""
            now = ", fetched now" if row["is_fetched_now"] else ""
            return Event(row["created_at"], f"{file}: to be fetched{tries}{now}{why}")
        case state:
            return Event(row["ended_at"], f"{file}: {state}{why}")


def _next_step(row: dict[str, Any], settings: Settings) -> tuple[str, datetime | None]:
    match ProcessingStatus(row["processing_status"]):
        case ProcessingStatus.RECEIVED:
            return "a worker's Dispatcher queues it, the oldest email first", None
        case ProcessingStatus.QUEUED if _is_later(row["next_attempt_at"], row["now"]):
            if row["claims"] == 0 and row["retry_count"] == 0:
                step = "it begins when its files are there, or without those that are not"
            elif _is_postponed(row):
                step = (
                    "its message is sent again: a worker of it vanished, so a process takes it "
                    "only while it has no other such email in work"
                )
            else:
                step = f"retry {row['retry_count']} of {settings.max_retries} begins"
            return step, row["next_attempt_at"]
        case ProcessingStatus.QUEUED if row["queued_at"] is None:
            return "a worker's Dispatcher sends its message anew", None
        case ProcessingStatus.QUEUED:
            lost_at = row["queued_at"] + timedelta(seconds=settings.message_lost_seconds)
            return "a worker claims it; if none has, its message is sent again", lost_at
        case ProcessingStatus.PROCESSING:
            return "its worker finishes; if it vanished, another takes over", row[
                "lease_expires_at"
            ]
        case ProcessingStatus.COMPLETED:
            return "nothing: it is done", None
        case ProcessingStatus.FAILED:
            return "nothing, until an operator retries it", None


def _is_postponed(row: dict[str, Any]) -> bool:
    """Whether it waits as a suspect, and not for its retry."""
    entries = json.loads(row["attempt_errors"])
    retries = {entry.get("next_attempt_at") for entry in entries} - {None}
    is_retry = row["next_attempt_at"] in map(datetime.fromisoformat, retries)
    return row["lost_claims"] > 0 and not is_retry


def _is_later(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment > now
