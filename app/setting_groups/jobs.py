"""The jobs of emails: their handler, retries, leases, and the line in the broker."""

from typing import Self

from pydantic import Field, model_validator

from app.setting_groups.group import LONGEST_SECONDS, SettingGroup


class JobSettings(SettingGroup):
    """How an accepted email is processed."""

    handler: str = "app.handlers.extract_text:handle"
    """What "processing" means: `package.module:function`."""

    handler_timeout_seconds: float = Field(default=300.0, gt=0, le=LONGEST_SECONDS)
    """Time one run of the handler may take before it counts as a failed attempt."""

    max_retries: int = Field(default=5, ge=0)
    """How often an email is tried again after its first failed attempt."""

    min_backoff_seconds: float = Field(default=15.0, gt=0, le=LONGEST_SECONDS)
    """Pause before the first retry; it doubles with each further one."""

    max_backoff_seconds: float = Field(default=300.0, gt=0, le=LONGEST_SECONDS)
    """Longest pause between two retries."""

    lease_seconds: float = Field(default=60.0, gt=0, le=LONGEST_SECONDS)
    """How long a claimed email belongs to its worker without a sign of life from it."""

    max_lost_claims: int = Field(default=3, ge=1)
    """How often the worker of an email may vanish while it is processed before the email is
    failed as the likely cause."""

    queue_depth: int = Field(default=1_000, ge=1)
    """Emails that may wait in the broker at once. The rest wait in the database, in order."""

    message_lost_seconds: float = Field(default=120.0, gt=0, le=LONGEST_SECONDS)
    """Time after which a queued email that no worker claimed is sent to the broker again."""

    queue: str = Field(default="mailroom", pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,80}$")
    """Name of the broker queue. Two installations that share a broker need two names."""

    @model_validator(mode="after")
    def _check_backoff(self) -> Self:
        if self.min_backoff_seconds > self.max_backoff_seconds:
            raise ValueError(
                "MAILROOM_MIN_BACKOFF_SECONDS is larger than MAILROOM_MAX_BACKOFF_SECONDS"
            )
        return self
