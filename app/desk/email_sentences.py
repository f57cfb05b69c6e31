"""What state an email is in, in one sentence, and what an operator can do about it now."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from app.durations import in_words
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.i18n.texts import ngettext
from app.models.bulk_action import Action
from app.models.incoming_email import ProcessingStatus, SyncStatus


def possible_actions(
    row: Mapping[str, Any],
    *,
    has_missing_files: bool,
    delivered: Collection[ProcessingStatus] = (),
) -> list[Action]:
    """What can be done about an email in this state.

    Args:
        delivered: ends of jobs that are delivered.
    """
    status = ProcessingStatus(row["processing_status"])
    actions: list[Action] = []
    if row["erased_at"] is None:
        # Without its texts no handler can do anything.
        is_whole = row["bodies_removed_at"] is None
        if is_whole and status in (ProcessingStatus.FAILED, ProcessingStatus.COMPLETED):
            actions.append(Action.RETRY)
        if status is ProcessingStatus.FAILED:
            actions += [Action.SETTLE, Action.DISCARD]
        if status in delivered:
            actions.append(Action.DELIVER)
        if has_missing_files:
            actions.append(Action.FETCH)
    return [*actions, Action.ERASE]


def state_sentence(row: Mapping[str, Any], now: datetime) -> str:
    """What it is and since when, as one would say it."""
    if row["erased_at"] is not None:
        return _("Its content was erased %(ago)s.", ago=ago(row["erased_at"], now))
    match ProcessingStatus(row["processing_status"]):
        case ProcessingStatus.RECEIVED:
            return _("Stored %(ago)s; no worker was asked yet.", ago=ago(row["created_at"], now))
        case ProcessingStatus.QUEUED if (due := row["next_attempt_at"]) and due > now:
            if row["claims"] == 0 and row["retry_count"] == 0:
                return _(
                    "Waits for its files, for %(time)s more at most.", time=in_words(due - now)
                )
            return ngettext(
                "Tried once, and will be again in %(time)s.",
                "Tried %(num)s times, and will be again in %(time)s.",
                row["retry_count"],
                time=in_words(due - now),
            )
        case ProcessingStatus.QUEUED:
            since = row["queued_at"] or row["created_at"]
            return _("Waits for a worker since %(ago)s.", ago=ago(since, now))
        case ProcessingStatus.PROCESSING:
            worker = row["claimed_by"] or _("a worker")
            if row["started_at"] is None:
                return _("In work now, by %(worker)s.", worker=worker)
            time = in_words(max(now - row["started_at"], timedelta()))
            return _("In work for %(time)s, by %(worker)s.", time=time, worker=worker)
        case ProcessingStatus.COMPLETED:
            return _completed(SyncStatus(row["sync_status"]), ago(row["completed_at"], now))
        case ProcessingStatus.FAILED:
            return ngettext(
                "Failed after %(num)s attempt, the last %(ago)s: %(why)s",
                "Failed after %(num)s attempts, the last %(ago)s: %(why)s",
                row["retry_count"] + 1,
                ago=ago(row["processed_at"] or row["completed_at"], now),
                why=as_told(row["processing_error"] or "") or _("no error was recorded"),
            )


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago a moment is."""
    if moment is None:
        return _("at an unknown time")
    return _("%(time)s ago", time=in_words(max(now - moment, timedelta())))


def _completed(delivery: SyncStatus, when: str) -> str:
    match delivery:
        case SyncStatus.PENDING:
            return _("Completed %(ago)s, and is being delivered.", ago=when)
        case SyncStatus.SYNCED:
            return _("Completed %(ago)s and delivered.", ago=when)
        case SyncStatus.FAILED:
            return _("Completed %(ago)s, but its delivery failed.", ago=when)
        case SyncStatus.NOT_APPLICABLE:
            return _("Completed %(ago)s.", ago=when)
