"""What is watched for: silence, email that Zendesk suspends, and the way that an email takes."""

from datetime import date
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from app.setting_groups.group import LONGEST_SECONDS, SettingGroup, check_url, split
from app.setting_groups.suspension import RecoverRule


class WatchSettings(SettingGroup):
    """When no email comes, and what never becomes a ticket."""

    silence_floor_seconds: float = Field(default=1_800.0, ge=0, le=LONGEST_SECONDS)
    """No alarm of silence comes before so long a time without an email, however many usually
    come."""

    silence_zone: str = "UTC"
    """Time zone in which the desk's hours are, such as `Europe/Berlin`: a silence is compared with
    the same hours of the last four weeks."""

    silence_holidays: Annotated[tuple[date, ...], NoDecode] = ()
    """Days on which no email is expected, comma-separated, such as `2026-12-25, 2027-01-01`. With a
    token Zendesk tells by itself that a day is quiet."""

    suspended_alert_days: float = Field(default=3.0, ge=0, le=14)
    """So many days before Zendesk deletes suspended mail there is an alarm, unless it is archived.
    0: none."""

    suspended_archive: bool = False
    """Whether suspended mail is kept in the quarantine, so that it outlives Zendesk's 14 days."""

    suspended_recover: Annotated[tuple[RecoverRule, ...], NoDecode] = ()
    """Which suspended mail is made tickets of at once, comma-separated: a cause, `cause:sender` or
    `*:sender`, as in `unknown_author:*@example.com`."""

    canary_seconds: float = Field(default=0.0, ge=0, le=3_600)
    """Pause between two canaries: signed webhooks without an email that Mailroom sends itself, to
    see that emails can be accepted, queued and completed. 60 is a good pause; 0: none is sent."""

    canary_url: str = ""
    """Address to which canaries go, such as `https://mailroom.example.com`. Empty:
    `MAILROOM_PUBLIC_URL`, or else `MAILROOM_HOST` and `MAILROOM_PORT` of this machine."""

    canary_deadline_seconds: float = Field(default=60.0, ge=1, le=3_600)
    """A canary that is not completed by then has failed. Two that fail in a row are an alarm."""

    @property
    def canary_interval_seconds(self) -> float:
        """Longest time from a canary that goes the whole way to the next one, where any is sent."""
        return self.canary_seconds + self.canary_deadline_seconds

    @field_validator("canary_url")
    @classmethod
    def _refuse_what_is_no_address(cls, value: str) -> str:
        if value:
            check_url("MAILROOM_CANARY_URL", value)
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise ValueError("MAILROOM_CANARY_URL has to be http:// or https:// and a host")
        return value

    @field_validator("suspended_recover", mode="before")
    @classmethod
    def _split_rules(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(RecoverRule.parse(entry) for entry in split(value))

    @field_validator("silence_holidays", mode="before")
    @classmethod
    def _split_holidays(cls, value: object) -> object:
        return tuple(split(value)) if isinstance(value, str) else value

    @field_validator("silence_zone")
    @classmethod
    def _refuse_what_is_no_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{value!r} is no time zone: write a name such as UTC or Europe/Berlin"
            ) from error
        return value
