"""What the Intake says of a webhook that it took."""

from uuid import UUID

import attrs

from app.models.webhook_status import WebhookStatus


@attrs.frozen
class Admission:
    """An email that is stored: under this id, now or since an earlier delivery; or that was stored
    and is erased for good, which is a duplicate, too."""

    email_id: UUID | None
    """None where no email was stored, nor found."""

    is_duplicate: bool
    is_email: bool = True
    """Else nothing was stored as one: an event about something else, or an email that Zendesk had
    erased."""

    unreadable: str | None = None
    """Why it is stored as failed: nobody can read it so far."""

    @property
    def status(self) -> WebhookStatus:
        """What the sender is told."""
        if not self.is_email:
            return WebhookStatus.ACKNOWLEDGED
        return WebhookStatus.DUPLICATE if self.is_duplicate else WebhookStatus.ACCEPTED


NO_EMAIL = Admission(None, is_duplicate=False, is_email=False)
