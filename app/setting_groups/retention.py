"""How long finished emails are kept, and what of them."""

from typing import Self

from pydantic import Field, model_validator

from app.setting_groups.group import LONGEST_DAYS, LONGEST_SECONDS
from app.setting_groups.intake import IntakeSettings

SECONDS_PER_DAY = 86_400
# A row holds the keys by which a delivery that is repeated is known. Zendesk tries for hours, and
# whoever recorded a webhook may send it again for as long as its signature counts.
LEAST_DAYS_OF_A_ROW = 3.0


class RetentionSettings(IntakeSettings):
    """Days after which something is removed, counted from when the email's job ended. 0 keeps it.

    Nothing is removed of an email whose delivery or files are pending.
    """

    keep_completed_days: float = Field(default=0.0, ge=0, le=LONGEST_DAYS)
    """Days after which a completed email is deleted, with its files and its history. 0: never."""

    keep_failed_days: float = Field(default=0.0, ge=0, le=LONGEST_DAYS)
    """Days after which a failed email is deleted, with its files and its history. 0: never."""

    keep_bodies_days: float = Field(default=0.0, ge=0, le=LONGEST_DAYS)
    """Days after which the texts of a completed or failed email are removed, and the payload as it
    came; the rest of it stays, and it cannot be processed again. 0: never."""

    keep_attachments_days: float = Field(default=0.0, ge=0, le=LONGEST_DAYS)
    """Days after which a file that was fetched is removed; what is known about it stays. 0:
    never."""

    keep_events_days: float = Field(default=0.0, ge=0, le=LONGEST_DAYS)
    """Days after which an entry of an email's history is deleted, and what the receiver was told
    besides the ends of emails. 0: never, as long as there is the email."""

    keep_audit_days: float = Field(default=0.0, ge=0, le=LONGEST_DAYS)
    """Days after which an entry of the audit log is deleted, and a bulk action that ended. 0:
    never."""

    prune_every_seconds: float = Field(default=3_600.0, gt=0, le=LONGEST_SECONDS)
    """Pause after which a worker looks again for what is to be removed."""

    @property
    def prunes(self) -> bool:
        """Whether anything is ever removed."""
        return any(
            (
                *(self.keep_completed_days, self.keep_failed_days, self.keep_bodies_days),
                *(self.keep_attachments_days, self.keep_events_days),
                self.keep_audit_days,
            )
        )

    @model_validator(mode="after")
    def _check_retention(self) -> Self:
        # A signature may lie as far ahead of our clock as behind it.
        least = max(LEAST_DAYS_OF_A_ROW, 2 * self.signature_max_age_seconds / SECONDS_PER_DAY)
        for name in ("keep_completed_days", "keep_failed_days"):
            if 0 < getattr(self, name) < least:
                raise ValueError(
                    f"MAILROOM_{name.upper()} has to be at least {least:g}: an email that is sent "
                    "again until then has to be known as a duplicate (0 keeps all; "
                    "MAILROOM_KEEP_BODIES_DAYS removes the texts earlier)"
                )
        return self
