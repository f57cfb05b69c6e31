"""Webhooks on which Mailroom itself fails: told from what waiting mends, so that they are kept."""

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import structlog

from app.database.errors import DATABASE_AWAY
from app.intake.refused import RefusedError
from app.intake.row_writer import NotStoredError
from app.models.quarantined_webhook import RefusalReason

log = structlog.get_logger(__name__)

DEFECT = (
    "Mailroom fails to store this email, as its log tells: send the webhook again, or retry it out "
    "of the quarantine when that is mended"
)
REFUSED_BY_DATABASE = (
    "the database refuses this email, as the log tells: send the webhook again, or retry it out of "
    "the quarantine when that is mended"
)


class UnstorableError(NotStoredError):
    """It may fail each time that it comes, until somebody mends what is wrong: it has to be kept in
    the quarantine, or whoever sends it gives up and it is lost."""

    reason: ClassVar = RefusalReason.UNSTORABLE


@contextlib.contextmanager
def telling_defects() -> Iterator[None]:
    """Log what fails for a defect of ours, and tell it from what waiting mends.

    Raises:
        UnstorableError: in the place of whatever nobody raised on purpose.
    """
    try:
        yield
    except (RefusedError, NotStoredError, *DATABASE_AWAY):
        raise
    except Exception as error:
        log.exception("webhook_not_stored")
        raise UnstorableError(DEFECT) from error
