"""Why a file is not kept, in words for operators."""

from enum import StrEnum


class Reason(StrEnum):
    """One cause; `sentence` says what it means and what to do."""

    NOT_A_URL = "not_a_url"
    HOST_NOT_ALLOWED = "host_not_allowed"
    BLOCKED_ADDRESS = "blocked_address"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    LOGIN_NEEDED = "login_needed"
    GONE = "gone"
    REFUSED = "refused"
    FLAGGED = "flagged"
    SCAN_PENDING = "scan_pending"
    NOT_CHECKED = "not_checked"
    TOO_LARGE = "too_large"
    COMPRESSED = "compressed"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    INCOMPLETE = "incomplete"
    BUSY = "busy"
    TOO_MANY = "too_many"
    TOO_LARGE_TOGETHER = "too_large_together"
    NO_ROOM = "no_room"
    STORE_AWAY = "store_away"
    WORKER_VANISHED = "worker_vanished"
    UNEXPECTED = "unexpected"

    @property
    def sentence(self) -> str:
        """What it means and what to do, as one sentence or two."""
        return _SENTENCES[self]

    @property
    def is_wait(self) -> bool:
        """Whether the file is not to blame: somebody asked to come later, or there is no place for
        it. That is no try used up."""
        return self in (Reason.BUSY, Reason.SCAN_PENDING, Reason.NO_ROOM, Reason.STORE_AWAY)


SKIPPING = frozenset(
    {
        *(Reason.NOT_A_URL, Reason.HOST_NOT_ALLOWED, Reason.BLOCKED_ADDRESS),
        *(Reason.TOO_LARGE, Reason.TOO_MANY, Reason.TOO_LARGE_TOGETHER),
    }
)
"""A limit or a rule says that the file is not fetched."""

_SENTENCES = {
    Reason.NOT_A_URL: "What the email names is no URL that could be fetched.",
    Reason.HOST_NOT_ALLOWED: (
        "Its URL leads to a host from which no files are fetched. If the host is yours, name it in "
        "MAILROOM_ATTACHMENT_HOSTS, or in MAILROOM_ZENDESK_HOSTS if it is a brand of the account."
    ),
    Reason.BLOCKED_ADDRESS: (
        "The host's name leads into a private network or to this machine, and so nothing was "
        "fetched. If that is meant, name it in MAILROOM_OUTBOUND_INTERNAL_HOSTS."
    ),
    Reason.TOO_MANY_REDIRECTS: "Each answer leads on to another URL.",
    Reason.LOGIN_NEEDED: (
        "Zendesk wants a login for it. See MAILROOM_ZENDESK_EMAIL and MAILROOM_ZENDESK_TOKEN: the "
        "token has to be valid, and its agent has to see the ticket."
    ),
    Reason.GONE: "The file is not there any more: deleted, redacted, or its link has expired.",
    Reason.REFUSED: "The host refused to give it out.",
    Reason.FLAGGED: (
        "Something harmful was found in it. MAILROOM_ATTACHMENT_KEEP_FLAGGED keeps such files."
    ),
    Reason.SCAN_PENDING: "Zendesk has not scanned it yet; it is fetched as soon as that is done.",
    Reason.NOT_CHECKED: (
        "The virus check of MAILROOM_CLAMD could not be made, and without it nothing is kept."
    ),
    Reason.TOO_LARGE: "It is larger than MAILROOM_ATTACHMENT_MAX_BYTES.",
    Reason.COMPRESSED: (
        "The host sends it compressed though that was not asked for, so that its size cannot be "
        "bounded."
    ),
    Reason.TIMEOUT: (
        "It did not come in time, or too slowly. See MAILROOM_ATTACHMENT_TIMEOUT_SECONDS and "
        "MAILROOM_ATTACHMENT_MIN_BYTES_PER_SECOND."
    ),
    Reason.UNREACHABLE: "The host could not be reached, could not prove its name, or failed.",
    Reason.INCOMPLETE: "It ended before it was whole.",
    Reason.BUSY: "The host asked to wait before it is called again.",
    Reason.TOO_MANY: "Its email has more files than MAILROOM_ATTACHMENT_MAX_COUNT.",
    Reason.TOO_LARGE_TOGETHER: (
        "With it, the files of its email would be larger than MAILROOM_ATTACHMENT_MAX_EMAIL_BYTES."
    ),
    Reason.NO_ROOM: (
        "The machine of the worker could not write it down. See the room and the rights of the "
        "folder `downloads` in MAILROOM_HOME; it is fetched again until there is room."
    ),
    Reason.STORE_AWAY: (
        "It was fetched and could not be stored. See MAILROOM_ATTACHMENT_STORE and "
        "`mailroom doctor`; it is fetched again until the store takes it."
    ),
    Reason.WORKER_VANISHED: "Each worker that began to fetch it vanished meanwhile.",
    Reason.UNEXPECTED: (
        "Mailroom met with an error that it does not know. The workers' log has it, as "
        "`attachment_fetch_failed`."
    ),
}


def sentence_of(reason: str) -> str:
    """The sentence of a stored reason; of one that a newer version stored, nothing."""
    return Reason(reason).sentence if reason in set(Reason) else ""
