"""What an operator types into the field of a search: words, and qualifiers such as `status:failed`.

Pure: from the text to a `Search`, or to what is wrong with it in words.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

import attrs

from app.api.search import Search
from app.errors import MailroomError
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.email_attachment import AttachmentState
from app.models.fit import fit_text, in_utc
from app.models.incoming_email import ProcessingStatus, SyncStatus

LONGEST_TEXT = 500
HANDLER_RESULT = "handler-result."

PART = re.compile(
    r'(?P<name>[A-Za-z][\w.-]*):(?:"(?P<quoted>[^"]*)"|(?P<value>[^\s"]+))'
    r'|"(?P<phrase>[^"]*)"|(?P<word>\S+)'
)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class SearchTextError(MailroomError):
    """The text cannot be understood; the message says what would be."""


@attrs.frozen
class Qualifier:
    """One that can be typed before a colon."""

    example: str
    meaning: str
    read: Callable[[str], Mapping[str, Any]]
    """From its value to fields of a `Search`.

    Raises:
        SearchTextError: there is no such value.
    """


def read_search(text: str) -> Search:
    """The search that a text asks for.

    Raises:
        SearchTextError: says what is wrong and what exists.
    """
    check_text(text)
    fields: dict[str, Any] = {}
    words: list[str] = []
    results: list[tuple[tuple[str, ...], str]] = []
    for part in PART.finditer(text):
        name = part["name"]
        if name is None:
            word = (part["phrase"] if part["phrase"] is not None else part["word"]).strip()
            words += [word] if word else []
            continue
        value = (part["quoted"] if part["quoted"] is not None else part["value"]).strip()
        if name.startswith(HANDLER_RESULT):
            results.append((_keys(name), value))
            continue
        found = _qualifier(name).read(value)
        for field, given in found.items():
            if field not in fields:
                fields[field] = given
            elif isinstance(given, tuple):
                fields[field] = (*fields[field], *given)
            else:
                raise SearchTextError(
                    _("%(name)s: is given twice (%(field)s)", name=name, field=field)
                )
    return Search(words=tuple(words), handler_results=tuple(results), **fields)


def check_text(text: str) -> None:
    """See that a text can be a search.

    Raises:
        SearchTextError: it is too long, or PostgreSQL cannot take it.
    """
    if len(text) > LONGEST_TEXT:
        raise SearchTextError(_("the search is longer than %(most)s characters", most=LONGEST_TEXT))
    if text != fit_text(text):
        raise SearchTextError(_("the search holds a character that no text has: leave it out"))


def _qualifier(name: str) -> Qualifier:
    qualifier = QUALIFIERS.get(name.lower())
    if qualifier is None:
        known = ", ".join(f"{known}:" for known in QUALIFIERS)
        raise SearchTextError(
            _(
                "there is no %(name)s: to search by. There are %(known)s and %(result)sKEY: - put "
                'what is meant as words into quotes, as in "%(name)s: ..."',
                name=name,
                known=known,
                result=HANDLER_RESULT,
            )
        )
    return qualifier


def _keys(name: str) -> tuple[str, ...]:
    keys = tuple(name.removeprefix(HANDLER_RESULT).split("."))
    if not all(keys):
        raise SearchTextError(
            _(
                "%(name)s: names no key, as %(result)slanguage: does",
                name=name,
                result=HANDLER_RESULT,
            )
        )
    return keys


def _one_of(field: str, kind: type[StrEnum], value: str) -> Any:
    try:
        return kind(value.lower())
    except ValueError:
        raise SearchTextError(
            _(
                "%(field)s: is one of %(values)s, not %(value)s",
                field=field,
                values=", ".join(kind),
                value=value,
            )
        ) from None


def _sender(value: str) -> Mapping[str, Any]:
    if "@" in value.lstrip("@"):
        return {"from_email": value}
    return {"from_domain": value.lstrip("@")}


def _has(value: str) -> Mapping[str, Any]:
    if value.lower() not in ("attachment", "attachments"):
        raise SearchTextError(_("has: knows attachment, not %(value)s", value=value))
    return {"has_attachment": True}


def read_span(field: str, first_key: str, last_key: str) -> Callable[[str], Mapping[str, Any]]:
    """Reads a day, a moment, or two of them with `..` between, of which one may be left out."""

    def read(value: str) -> Mapping[str, Any]:
        first, dots, last = value.partition("..")
        if not dots:
            last = first
        if not (first or last):
            raise SearchTextError(
                _("%(field)s: needs a day, as in %(field)s:2026-11-01..2026-11-03", field=field)
            )
        found: dict[str, Any] = {}
        if first:
            found[first_key] = _beginning(field, first)
        if last:
            found[last_key] = _end(field, last)
        return found

    return read


def _beginning(field: str, value: str) -> datetime:
    if _DAY.fullmatch(value):
        return datetime.combine(_day(field, value), time(), UTC)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise SearchTextError(
            _(
                "%(field)s: takes days and moments such as 2026-11-03 or 2026-11-03T14:05, "
                "not %(value)s",
                field=field,
                value=value,
            )
        ) from None
    try:
        return in_utc(moment)
    except OverflowError:
        raise SearchTextError(
            _("%(field)s: %(value)s lies outside the calendar", field=field, value=value)
        ) from None


def _end(field: str, value: str) -> datetime:
    """A day is meant with its end; of moments the minute."""
    try:
        if _DAY.fullmatch(value):
            return datetime.combine(_day(field, value), time(), UTC) + timedelta(days=1)
        return _beginning(field, value) + timedelta(minutes=1)
    except OverflowError:
        raise SearchTextError(
            _("%(field)s: %(value)s lies outside the calendar", field=field, value=value)
        ) from None


def _day(field: str, value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise SearchTextError(
            _("%(field)s: there is no day %(value)s", field=field, value=value)
        ) from None


QUALIFIERS: Mapping[str, Qualifier] = {
    "status": Qualifier(
        "status:failed",
        N_("received, queued, processing, completed or failed; may be given several times"),
        lambda value: {"status": (_one_of("status", ProcessingStatus, value),)},
    ),
    "error": Qualifier(
        'error:"timed out"',
        N_("words of why it is failed"),
        lambda value: {"error_words": (value,)},
    ),
    "failure": Qualifier(
        'failure:"the CRM answered 503"',
        N_("the whole reason in the overview's words, in which # stands for ids and long numbers"),
        lambda value: {"failure": value},
    ),
    "from": Qualifier("from:example.com", N_("the sender's address, or its domain"), _sender),
    "ticket": Qualifier("ticket:35436", N_("Zendesk's number"), lambda value: {"ticket_id": value}),
    "subject": Qualifier(
        "subject:invoice", N_("words of the subject"), lambda value: {"subject_words": (value,)}
    ),
    "received": Qualifier(
        "received:2026-11-01..2026-11-03",
        N_("days or moments (UTC)"),
        read_span("received", "received_from", "received_until"),
    ),
    "ended": Qualifier(
        "ended:2026-11-03..",
        N_("when it became completed or failed"),
        read_span("ended", "completed_from", "completed_until"),
    ),
    "has": Qualifier("has:attachment", N_("emails that name files"), _has),
    "file": Qualifier(
        "file:failed",
        N_("one of its files is pending, kept, skipped, failed or flagged"),
        lambda value: {"file_state": _one_of("file", AttachmentState, value)},
    ),
    "file-name": Qualifier(
        "file-name:invoice",
        N_("words of the name of that file, if it is not kept"),
        lambda value: {"file_words": (value,)},
    ),
    "sync": Qualifier(
        "sync:failed",
        N_("the delivery: pending, synced, failed or not_applicable"),
        lambda value: {"sync_status": _one_of("sync", SyncStatus, value)},
    ),
    "sync-error": Qualifier(
        "sync-error:503",
        N_("words of why its delivery was given up"),
        lambda value: {"sync_error_words": (value,)},
    ),
}
