"""What a wish to reconcile means, for the command and the API alike, and what is refused."""

from collections.abc import Collection

from app.errors import MailroomError
from app.i18n.texts import gettext as _
from app.models.incoming_email import ProcessingStatus
from app.settings import Settings
from app.sync.differences import Difference, Which
from app.sync.reconciling import Reconciliation


class ReconciliationError(MailroomError):
    """What is asked for is not possible, or probably not meant."""


class WishError(ReconciliationError):
    """What is asked for finds nothing, or more than may be meant."""

    def __init__(self, field: str, told: str) -> None:
        super().__init__(told)
        self.field = field
        """The one to be changed, as the API calls it."""


def plan(
    settings: Settings,
    which: Which,
    differences: Collection[Difference],
    *,
    everything: bool,
    applies: bool,
    by: str,
) -> Reconciliation:
    """What is meant: of a span, or by ids, everything is delivered again; otherwise what differs.

    Args:
        differences: only these; none: as above.
        everything: all of a span is meant indeed.

    Raises:
        WishError: a span has no filter, or ends before it begins; or what was erased is looked for
            by what is not known of it any more.
        ReconciliationError: nothing is delivered here, or the receiver cannot be asked.
    """
    states = delivered_states(settings)
    is_span = which.since is not None or which.until is not None
    if which.since is not None and which.until is not None and which.until <= which.since:
        raise WishError("until", "`until` has to be later than `since`: no email ended in between")
    is_of_somebody = bool(which.ids or which.ticket_id or which.from_email)
    means_all = Difference.CHOSEN in differences or (is_span and not differences)
    if means_all and not is_of_somebody and not everything:
        raise WishError(
            "everything",
            "a span alone means every email that ended in it: say which by a ticket, a sender, ids "
            "or a difference, or say that all are meant (--all, or `everything`)",
        )
    if Difference.UNTOLD in differences and (which.ticket_id or which.from_email):
        raise WishError(
            "only",
            f"of what was erased neither ticket nor sender is known any more: say "
            f"`{Difference.UNTOLD.value}` without them",
        )
    wanted = set(differences)
    if not wanted:
        wanted = set(Difference) - {Difference.LACKING, Difference.CHOSEN}
        if is_span or which.ids:
            wanted.add(Difference.CHOSEN)
        elif settings.sync_check_url:
            wanted.add(Difference.LACKING)
    if Difference.LACKING in wanted and not settings.sync_check_url:
        raise ReconciliationError(
            _("the receiver cannot be asked what it has: set MAILROOM_SYNC_CHECK_URL")
        )
    return Reconciliation(which=which, differences=wanted, states=states, applies=applies, by=by)


def delivered_states(settings: Settings) -> list[ProcessingStatus]:
    """Ends of jobs that are delivered.

    Raises:
        ReconciliationError: nothing is delivered here.
    """
    if not settings.delivers:
        raise ReconciliationError(
            _("nothing is delivered here: set MAILROOM_SYNC_URL and MAILROOM_SYNC_SECRETS")
        )
    failed = [ProcessingStatus.FAILED] if settings.sync_failed else []
    return [ProcessingStatus.COMPLETED, *failed]
