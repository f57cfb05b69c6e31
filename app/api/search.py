"""Which emails are meant: a search as a condition in SQL, and the place where a page begins."""

import base64
import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs

from app.i18n.texts import gettext as _
from app.models.email_attachment import NOT_KEPT, AttachmentState
from app.models.fit import containing, fit_text, in_utc, is_unreadable
from app.models.incoming_email import ProcessingStatus, SyncStatus
from app.search.words import (
    ANYWHERE,
    ERROR,
    HAS_ATTACHMENT,
    SUBJECT,
    as_tsvector,
    ask_for_cut_text,
    ask_for_text,
    ask_for_whole,
    of_domain,
    of_value,
    with_humps,
)

LONGEST_FAILURE = 120
# What errors of one cause have in common: the first line, without numbers of four digits or more,
# ids, and the quotation marks that no qualifier holds. All that is blank is a space: a search is
# stripped of it at its ends, and forms change it within.
_BLANKS = "".join(sign for sign in map(chr, range(0x3001)) if sign.isspace())
FAILURE = rf"""btrim(left(replace(regexp_replace(
    translate(
        split_part(COALESCE(processing_error, ''), E'\n', 1), '{_BLANKS}', '{" " * len(_BLANKS)}'
    ),
    '\m([0-9a-fA-F]{{8}}[0-9a-fA-F-]*|[0-9]{{4,}})\M', '#', 'g'
), '"', ''''), 120))"""


# Each as its index has it: of deliveries that were given up, and of files that are not kept.
SYNC_ERROR = as_tsvector(with_humps("sync_error"))
FILE_NAME = as_tsvector("filename")


# A web process says when an email came, PostgreSQL when it ended.
CLOCKS_APART = "1 hour"


class CursorError(ValueError):
    """A cursor that was not made here."""


class SearchError(ValueError):
    """A filter that PostgreSQL cannot take. `field` is its name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@attrs.frozen
class Cursor:
    """The place in the list after which a page begins."""

    received_at: datetime
    id: UUID

    def encode(self) -> str:
        text = json.dumps([self.received_at.isoformat(), str(self.id)])
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Read what `encode` made.

        Raises:
            CursorError: it is something else.
        """
        try:
            received_at, email_id = json.loads(base64.urlsafe_b64decode(text))
            cursor = cls(in_utc(datetime.fromisoformat(received_at)), UUID(email_id))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CursorError(_("it is not one that was given: leave it out to begin")) from error
        return cursor


@attrs.frozen(kw_only=True)
class Search:
    """Which emails are meant; all that is given has to hold."""

    status: Sequence[ProcessingStatus] = ()
    ticket_id: str | None = None
    from_email: str | None = None
    """The whole address, in upper or lower case."""
    from_domain: str | None = None
    """What follows the @ of the address, in upper or lower case."""
    subject: str | None = None
    """A part of it, in upper or lower case."""
    error: str | None = None
    """A part of why it is failed."""
    failure: str | None = None
    """What errors of one cause have in common, as FAILURE makes it."""
    sync_status: SyncStatus | None = None
    received_from: datetime | None = None
    received_until: datetime | None = None
    """Exclusive."""
    completed_from: datetime | None = None
    """When it became completed or failed."""
    completed_until: datetime | None = None
    """Exclusive."""
    has_attachment: bool = False
    """It names files."""
    file_state: AttachmentState | None = None
    """One of its files is in this state."""
    file_words: Sequence[str] = ()
    """Each stands in the name of that file, which is not kept."""
    words: Sequence[str] = ()
    """Each stands in the subject, the sender's name or address, or the ticket's number; of
    several in one the others follow it. One with `*` at its end is the beginning of a word."""
    subject_words: Sequence[str] = ()
    """Each stands so in the subject."""
    error_words: Sequence[str] = ()
    """Each stands so in why it is failed."""
    sync_error_words: Sequence[str] = ()
    """Each stands so in why its delivery was given up."""
    handler_results: Sequence[tuple[tuple[str, ...], str]] = ()
    """Keys that lead to a place in what the handler returned, and the text that stands there."""

    def of_file(self, parameters: list[object]) -> str:
        """What of it is about one file, as a condition in SQL on `email_attachments`; its values
        are appended to the parameters.

        Raises:
            SearchError: a value that PostgreSQL cannot take, or names of files that are kept.
        """
        conditions = [f"state = '{self.file_state.value}'"] if self.file_state else []
        if self.file_words and self.file_state not in NOT_KEPT:
            states = ", ".join(f"file:{state}" for state in NOT_KEPT)
            raise SearchError(
                "file_words", _("file-name: goes with one of %(states)s", states=states)
            )
        for text in self.file_words:
            parameters.append(_asked("file_words", text))
            conditions.append(f"{FILE_NAME} @@ ${len(parameters)}::text::tsquery")
        return " AND ".join(conditions)

    def asks_index(self) -> str | None:
        """The `tsquery` of what the index of words answers; None where it is not asked.

        Raises:
            SearchError: a value that no email has.
        """
        parts: list[str] = []
        for name, texts, weights in (
            ("words", _with_letters(self.words), ANYWHERE),
            ("subject_words", self.subject_words, SUBJECT),
            ("error_words", self.error_words, ERROR),
        ):
            parts += [_asked(name, text, weights) for text in texts]
        for name, value in (("from_domain", self.from_domain), *self._results()):
            _check_text(name, value)
        if self.from_domain is not None:
            parts.append(ask_for_whole(of_domain(self.from_domain)))
        if self.has_attachment:
            parts.append(ask_for_whole(HAS_ATTACHMENT))
        parts += [ask_for_whole(of_value(*result)) for result in self.handler_results]
        failure = self.failure or ""
        _check_text("failure", failure)
        # Around what was left out of it.
        *pieces, last = failure.split("#")
        ask_for_last = ask_for_cut_text if len(failure) == LONGEST_FAILURE else ask_for_text
        asked = (*(ask_for_text(piece, ERROR) for piece in pieces), ask_for_last(last, ERROR))
        parts += filter(None, asked)
        return " & ".join(parts) or None

    def _results(self) -> list[tuple[str, str]]:
        return [
            ("handler_results", ".".join((*keys, value))) for keys, value in self.handler_results
        ]

    def told(self) -> dict[str, object]:
        """Which filters are given, for the audit log: of texts, which may name a customer, that
        there is one."""
        told: dict[str, object] = {}
        for name, value in attrs.asdict(self, recurse=False).items():
            if isinstance(value, datetime):
                told[name] = value.isoformat()
            elif name in ("status", "sync_status") and isinstance(value, tuple | list) and value:
                told[name] = [status.value for status in value]
            elif value not in (None, ()):
                told[name] = value if isinstance(value, bool | SyncStatus) else "given"
        return told

    def where(self, parameters: list[object], *, by_index: bool = True) -> str:
        """The condition in SQL; its values are appended to the parameters.

        Args:
            by_index: false where the entry of the email was looked at already.

        Raises:
            SearchError: a value that PostgreSQL cannot take.
        """
        conditions = ["true"]

        def add(condition: str, value: object) -> None:
            parameters.append(value)
            conditions.append(condition.format(f"${len(parameters)}"))

        for name in ("ticket_id", "from_email", "subject", "error", "failure"):
            _check_text(name, getattr(self, name))
        if by_index and (asked := self.asks_index()) is not None:
            add("id IN (SELECT email FROM search_entries WHERE words @@ {}::text::tsquery)", asked)
        if self.error_words or self.failure is not None:
            # Of what is retried the entry has the error until it has ended again.
            conditions.append("processing_status = 'failed'")
        if self.status:
            # Written out: a plan for any state reads the whole archive for a rare one.
            states = ", ".join(f"'{status.value}'" for status in self.status)
            conditions.append(f"processing_status IN ({states})")
        if self.ticket_id is not None:
            add("zendesk_ticket_id = {}", self.ticket_id)
        if self.from_email is not None:
            add("lower(from_email) = lower({})", self.from_email)
        if self.subject is not None:
            add("subject ILIKE {}", containing(self.subject))
        if self.error is not None:
            add("processing_error ILIKE {}", containing(self.error))
        if self.failure is not None:
            parameters.append(self.failure)
            conditions.append(f"{FAILURE} = ${len(parameters)}")
        if self.sync_status is not None:
            conditions.append(f"sync_status = '{self.sync_status.value}'")
        for column in ("received", "completed"):
            for bound, comparison in (("from", ">="), ("until", "<")):
                name = f"{column}_{bound}"
                if (moment := getattr(self, name)) is not None:
                    add(f"{column}_at {comparison} {{}}", _moment(name, moment))
        if self.completed_until is not None:
            # Nothing ends before it came. So what came since is not walked over in the list, whose
            # order is that of coming.
            conditions.append(f"received_at < ${len(parameters)} + interval '{CLOCKS_APART}'")
        for text in self.sync_error_words:
            # As the index on it has it: of what is retried the last error stays.
            add(
                f"sync_status = 'failed' AND {SYNC_ERROR} @@ {{}}::text::tsquery",
                _asked("sync_error_words", text),
            )
        if self.file_state is not None or self.file_words:
            of_file = self.of_file(parameters)
            conditions.append(f"id IN (SELECT email FROM email_attachments WHERE {of_file})")  # noqa: S608 - of constants
        for keys, value in self.handler_results:
            parameters += [list(keys), value]
            conditions.append(
                f"CASE WHEN {is_unreadable('extracted_data')} THEN false"
                f" ELSE extracted_data #>> ${len(parameters) - 1} = ${len(parameters)} END"
            )
        return " AND ".join(conditions)


def _with_letters(words: Sequence[str]) -> Sequence[str]:
    """Without those that hold no letter and no digit, as the middle one of `late - invoice`, unless
    there are no others."""
    return [word for word in words if ask_for_text(word, ANYWHERE)] or words


def _asked(name: str, text: str, weights: str = ERROR) -> str:
    """The `tsquery` of words."""
    _check_text(name, text)
    asked = ask_for_text(text, weights)
    if asked is None:
        raise SearchError(name, _("%(text)s: holds no letter and no digit", text=text))
    return asked


def _check_text(name: str, text: str | None) -> None:
    if text is not None and text != fit_text(text):
        raise SearchError(name, _("holds a character that no email has: leave it out"))


def _moment(name: str, moment: datetime) -> datetime:
    try:
        return in_utc(moment)
    except OverflowError as error:
        raise SearchError(name, _("lies outside the calendar")) from error
