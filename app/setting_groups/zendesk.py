"""The Zendesk account and the token for its API."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.setting_groups.group import LONGEST_SECONDS, LOOPBACK, SettingGroup, check_url, split_hosts

ZENDESK_SUBDOMAIN = re.compile(r"([A-Za-z0-9](-?[A-Za-z0-9])*)?")


class ZendeskSettings(SettingGroup):
    """Which account emails come from, and as whom it is asked."""

    zendesk_subdomain: str = ""
    """The account's name: `example` of `https://example.zendesk.com`. It is asked who wrote an
    email that came as an event."""

    zendesk_url: str = ""
    """Address of the account's API, in place of the subdomain's."""

    zendesk_email: str = ""
    """Address of the agent whose API token is used."""

    zendesk_token: str = Field(default="", repr=False)
    """API token of the Zendesk account. Empty: nobody is looked up."""

    zendesk_webhook_id: str = Field(default="", pattern=r"^[0-9A-Za-z-]*$")
    """Id of the webhook at Zendesk that calls Mailroom. Empty: each whose address ends in
    `/api/v1/zendesk/webhook`."""

    zendesk_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Further host names of the account, comma-separated: those of its brands. They get the token
    for attachments as the account's own does."""

    zendesk_ips: Literal["off", "report", "enforce"] = "report"
    """Whether webhooks are compared with the addresses that Zendesk publishes: `report` counts
    signed ones that come from elsewhere, `enforce` refuses them. Without a list none is refused."""

    zendesk_share: float = Field(default=0.5, gt=0, le=1)
    """Share of each of the API's rate limits that Mailroom may use up; the rest is left to the
    team's other tools. While those use more than the rest, Mailroom asks a tenth as often."""

    zendesk_exports_per_minute: int = Field(default=8, ge=1)
    """Requests a minute of a process to the API's exports, of which Zendesk allows ten in all."""

    zendesk_watch_seconds: float = Field(default=60.0, ge=1, le=LONGEST_SECONDS)
    """Pause between two looks at what Zendesk's API tells of failed calls and of tickets."""

    @property
    def watched_every(self) -> float | None:
        """Seconds between two looks behind the webhook; None where nothing looks."""
        return self.zendesk_watch_seconds if self.zendesk_token else None

    @property
    def zendesk_address(self) -> str:
        """Where the account's API is."""
        return self.zendesk_url or f"https://{self.zendesk_subdomain}.zendesk.com"

    @field_validator("zendesk_hosts", mode="before")
    @classmethod
    def _split_zendesk_hosts(cls, value: object) -> object:
        return split_hosts(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_zendesk(self) -> Self:
        if not ZENDESK_SUBDOMAIN.fullmatch(self.zendesk_subdomain):
            raise ValueError(
                "MAILROOM_ZENDESK_SUBDOMAIN is the first part of the account's host name alone: "
                "`example` of example.zendesk.com"
            )
        if self.zendesk_url:
            _check_zendesk_url(self.zendesk_url, is_production=self.is_production)
        if self.zendesk_token and not (
            self.zendesk_email and (self.zendesk_subdomain or self.zendesk_url)
        ):
            raise ValueError(
                "MAILROOM_ZENDESK_TOKEN needs MAILROOM_ZENDESK_EMAIL, and "
                "MAILROOM_ZENDESK_SUBDOMAIN or MAILROOM_ZENDESK_URL"
            )
        return self


def _check_zendesk_url(url: str, *, is_production: bool) -> None:
    """See that the token would travel to one host, and encrypted.

    Raises:
        ValueError: it would not.
    """
    check_url("MAILROOM_ZENDESK_URL", url)
    parts = urlsplit(url)
    is_bare = not (parts.username or parts.query or parts.fragment) and parts.path in ("", "/")
    is_near = parts.scheme == "http" and parts.hostname in LOOPBACK and not is_production
    if not (parts.hostname and is_bare and (parts.scheme == "https" or is_near)):
        raise ValueError(
            "MAILROOM_ZENDESK_URL has to be https:// and a host, as in https://example.zendesk.com "
            "(http:// for this machine's own addresses, outside production)"
        )
