"""Why a file is not kept, in words for operators."""

from enum import StrEnum

from app.i18n.texts import N_
from app.i18n.texts import gettext as _


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
    STORE_REFUSED = "store_refused"
    WORKER_VANISHED = "worker_vanished"
    UNEXPECTED = "unexpected"
    EXPIRED = "expired"

    @property
    def sentence(self) -> str:
        """What it means and what to do, as one sentence or two."""
        return _(_SENTENCES[self])

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
    Reason.NOT_A_URL: N_("What the email names is no URL that could be fetched."),
    Reason.HOST_NOT_ALLOWED: N_(
        "Its URL leads to a host from which no files are fetched. If the host is yours, name it in "
        "MAILROOM_ATTACHMENT_HOSTS, or in MAILROOM_ZENDESK_HOSTS if it is a brand of the account."
    ),
    Reason.BLOCKED_ADDRESS: N_(
        "The host's name leads into a private network or to this machine, and so nothing was "
        "fetched. If that is meant, name it in MAILROOM_OUTBOUND_INTERNAL_HOSTS."
    ),
    Reason.TOO_MANY_REDIRECTS: N_("Each answer leads on to another URL."),
    Reason.LOGIN_NEEDED: N_(
        "Zendesk wants a login for it. See MAILROOM_ZENDESK_EMAIL and MAILROOM_ZENDESK_TOKEN: the "
        "token has to be valid, and its agent has to see the ticket."
    ),
    Reason.GONE: N_("The file is not there any more: deleted, redacted, or its link has expired."),
    Reason.REFUSED: N_("The host refused to give it out."),
    Reason.FLAGGED: N_(
        "Something harmful was found in it. MAILROOM_ATTACHMENT_KEEP_FLAGGED keeps such files."
    ),
    Reason.SCAN_PENDING: N_(
        "Zendesk has not scanned it yet; it is fetched as soon as that is done."
    ),
    Reason.NOT_CHECKED: N_(
        "The virus check of MAILROOM_CLAMD could not be made, and without it nothing is kept."
    ),
    Reason.TOO_LARGE: N_("It is larger than MAILROOM_ATTACHMENT_MAX_BYTES."),
    Reason.COMPRESSED: N_(
        "The host sends it compressed though that was not asked for, so that its size cannot be "
        "bounded."
    ),
    Reason.TIMEOUT: N_(
        "It did not come in time, or too slowly. See MAILROOM_ATTACHMENT_TIMEOUT_SECONDS and "
        "MAILROOM_ATTACHMENT_MIN_BYTES_PER_SECOND."
    ),
    Reason.UNREACHABLE: N_("The host could not be reached, could not prove its name, or failed."),
    Reason.INCOMPLETE: N_("It ended before it was whole."),
    Reason.BUSY: N_("The host asked to wait before it is called again."),
    Reason.TOO_MANY: N_("Its email has more files than MAILROOM_ATTACHMENT_MAX_COUNT."),
    Reason.TOO_LARGE_TOGETHER: N_(
        "With it, the files of its email would be larger than MAILROOM_ATTACHMENT_MAX_EMAIL_BYTES."
    ),
    Reason.NO_ROOM: N_(
        "The machine of the worker could not write it down. See the room and the rights of the "
        "folder `downloads` in MAILROOM_HOME; it is fetched again until there is room."
    ),
    Reason.STORE_AWAY: N_(
        "It was fetched and could not be stored. See MAILROOM_ATTACHMENT_STORE and "
        "`mailroom doctor`; it is fetched again until the store takes it."
    ),
    Reason.STORE_REFUSED: N_(
        "It was fetched, and the store takes other files and not this one. See what limits "
        "MAILROOM_ATTACHMENT_STORE has, on sizes for one; then have it fetched again."
    ),
    Reason.WORKER_VANISHED: N_("Each worker that began to fetch it vanished meanwhile."),
    Reason.UNEXPECTED: N_(
        "Mailroom met with an error that it does not know. The workers' log has it, as "
        "`attachment_fetch_failed`."
    ),
    Reason.EXPIRED: N_(
        "It was kept for as long as MAILROOM_KEEP_ATTACHMENTS_DAYS says, and then removed."
    ),
}


def sentence_of(reason: str) -> str:
    """The sentence of a stored reason; of one that a newer version stored, nothing."""
    return Reason(reason).sentence if reason in set(Reason) else ""
