"""What happened to an email, a sentence each, of what its rows hold."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import asyncpg
import attrs

from app.attachments.reasons import sentence_of
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.models.email_attachment import AttachmentState
from app.models.email_event import EmailEventKind
from app.models.entries import Entry, read_entries
from app.models.incoming_email import ProcessingStatus


class EventKind(StrEnum):
    """What an event is about."""

    CAME = "came"
    WAIT = "wait"
    WORK = "work"
    GOOD = "good"
    BAD = "bad"
    SENT = "sent"
    FILE = "file"
    PERSON = "person"
    """An operator did it."""
    OTHER = "other"


# How an operator's acts begin in what is stored.
_BY_PERSON = ("retried by", "completed by", "discarded by")


@attrs.frozen
class Event:
    """Something that happened to an email."""

    at: datetime
    what: str
    kind: EventKind = EventKind.OTHER


def events_of_email(row: dict[str, Any]) -> list[Event]:
    """What its own row tells."""
    received = _("received: stored durably, and Zendesk was told 200")
    events = [Event(row["created_at"], received, EventKind.CAME)]
    entries = read_entries(row["attempt_errors"])
    events += [_event_of_attempt(entry, row["created_at"]) for entry in entries]
    # The columns know the last claim only.
    begun = {
        entry.started_at: entry.worker or _("a worker") for entry in entries if entry.started_at
    }
    if row["started_at"]:
        worker = row["claimed_by"] or _("a worker")
        last = _("%(worker)s, claim %(claim)s", worker=worker, claim=row["claims"])
        begun.setdefault(row["started_at"], last)
    events += [
        Event(at, _("processing: claimed by %(worker)s", worker=claim), EventKind.WORK)
        for at, claim in begun.items()
    ]
    if row["queued_at"]:
        queued = _("queued: its message went to the broker")
        events.append(Event(row["queued_at"], queued, EventKind.WAIT))
    if row["completed_at"]:
        status = ProcessingStatus(row["processing_status"])
        error = f": {as_told(row['processing_error'])}" if row["processing_error"] else ""
        kind = EventKind.BAD if status is ProcessingStatus.FAILED else EventKind.GOOD
        events.append(Event(row["completed_at"], f"{_(status)}{error}", kind))
    if row["bodies_removed_at"]:
        removed = _("its texts were removed, since they were old enough")
        events.append(Event(row["bodies_removed_at"], removed))
    return events


def _event_of_attempt(entry: Entry, created_at: datetime) -> Event:
    what, kind = as_told(entry.error), EventKind.OTHER
    if entry.error.startswith(_BY_PERSON):
        kind = EventKind.PERSON
    if entry.attempt:
        what = _("attempt %(number)s: %(error)s", number=entry.attempt, error=what)
        kind = EventKind.BAD
    if entry.worker:
        what = _("%(what)s (by %(who)s)", what=what, who=entry.worker)
    return Event(entry.at or created_at, what, kind)


def event_of_file(row: "asyncpg.Record") -> Event:
    """How a file of it stands."""
    name = f" ({row['filename']})" if row["filename"] else ""
    why = ""
    if row["reason"] is not None:
        detail = f" [{as_told(row['detail'])}]" if row["detail"] else ""
        why = f": {row['reason']}. {sentence_of(row['reason'])}{detail}"
    file = _("file %(number)s", number=row["position"]) + name
    # No transition leaves it out; a restored or mended row may.
    ended_at = row["ended_at"] or row["created_at"]
    match AttachmentState(row["state"]):
        case AttachmentState.KEPT:
            kept = _("%(file)s: kept, %(size)s bytes", file=file, size=row["size"])
            return Event(ended_at, kept, EventKind.FILE)
        case AttachmentState.PENDING:
            what = _("%(file)s: to be fetched", file=file)
            if row["tries"]:
                what += _(", %(tries)s tries so far", tries=row["tries"])
            if row["is_taken"]:
                # The lease of who fetches it, which is extended while it lives.
                is_alive = row["is_later"]
                what += _(", fetched now") if is_alive else _(", whoever fetched it vanished")
            return Event(row["created_at"], what + why, EventKind.FILE)
        case state:
            return Event(ended_at, f"{file}: {_(state)}{why}", EventKind.FILE)


def event_of_entry(row: "asyncpg.Record") -> Event:
    """An entry of its history."""
    what, kind = as_told(row["text"]), EventKind.OTHER
    if row["kind"] == EmailEventKind.DELIVERY:
        kind = EventKind.SENT
        if row["attempt"]:
            what = _("delivery, try %(number)s: %(what)s", number=row["attempt"], what=what)
        else:
            what = _("delivery: %(what)s", what=what)
    if by := row["who"] or row["worker"]:
        what = _("%(what)s (by %(who)s)", what=what, who=by)
    return Event(row["at"], what, kind)


def last_delivery(synced_at: datetime | None, entries: Sequence["asyncpg.Record"]) -> list[Event]:
    """The last delivery, where its entry is gone because it was old."""
    if synced_at is None or synced_at in {entry["at"] for entry in entries}:
        return []
    return [Event(synced_at, _("delivered"), EventKind.GOOD)]
