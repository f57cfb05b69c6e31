"""What all refusals of a webhook have in common."""

from typing import ClassVar

from app.errors import MailroomError
from app.models.quarantined_webhook import RefusalReason


class RefusedError(MailroomError):
    """A webhook is not accepted as it is; the message tells its sender why."""

    reason: ClassVar[RefusalReason]
    status: ClassVar[int]
    """The HTTP status that it is answered with."""
