"""Where finished emails go."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.http.host_names import Origin
from app.setting_groups.group import (
    LONGEST_SECONDS,
    LOOPBACK,
    MAKE_A_SIGNING_SECRET,
    check_secret,
    check_url,
    split,
)
from app.setting_groups.outbound import OutboundSettings

MOST_TRIES = 100


class DeliverySettings(OutboundSettings):
    """The receiver of finished emails, and how it is told of them."""

    sync_url: str = Field(default="", repr=False)
    """Where finished emails are delivered: an https URL of your own system. Empty: nowhere."""

    sync_check_url: str = Field(default="", repr=False)
    """Where the receiver says which deliveries it has, for `mailroom reconcile`. It gets
    `{"type": "deliveries.check", "ids": [...]}`, signed as deliveries are, and answers
    `{"has": [...]}`. Empty: it is not asked."""

    sync: str = ""
    """A function that delivers finished emails in another way than HTTP:
    `package.module:function`."""

    sync_secrets: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """Secrets by which deliveries are signed, comma-separated, each `whsec_...`. A delivery bears a
    signature of each, so that one can be rotated."""

    sync_failed: bool = False
    """Deliver emails that failed for good, too."""

    sync_batch: int = Field(default=1, ge=1, le=1_000)
    """Emails in one request. More than 1: the body is a JSON array."""

    sync_batch_max_bytes: int = Field(default=4 * 1024 * 1024, ge=4_096, le=1024 * 1024 * 1024)
    """Largest body of a request with several emails; one email alone may be larger."""

    sync_order: Literal["none", "ticket"] = "none"
    """`ticket`: an email waits until the earlier ones of its ticket are delivered, or failed for
    good."""

    sync_format: Literal["plain", "cloudevents"] = "plain"
    """Shape of the body: Standard Webhooks' own, or CloudEvents 1.0."""

    sync_bodies: Literal["inline", "link"] = "inline"
    """Whether texts of the email are in the body, or only a link under which the API has them."""

    sync_max_bytes: int = Field(default=256 * 1024, ge=4_096, le=100 * 1024 * 1024)
    """Largest body of one email's delivery. Of a larger one texts and files are left out, and said
    to be."""

    sync_retry_seconds: Annotated[tuple[float, ...], NoDecode] = (
        *(0, 5, 300, 1_800, 7_200),
        *(18_000, 36_000, 50_400, 72_000, 86_400),
    )
    """Pauses before each try of a delivery, comma-separated; after the last one it failed. The
    first is 0: what has ended is delivered at once."""

    sync_timeout_seconds: float = Field(default=20.0, gt=0, le=3_600)
    """Time that one request of a delivery may take."""

    sync_concurrency: int = Field(default=20, ge=1, le=1_000)
    """Requests that one worker process has under way at once."""

    sync_breaker_failures: int = Field(default=10, ge=1, le=1_000_000)
    """Failures in a row after which the receiver counts as down: then it gets one probe at a time,
    until one succeeds."""

    sync_breaker_seconds: float = Field(default=5.0, gt=0, le=86_400)
    """Pause before the first probe; it doubles with each, up to sixty times as long."""

    public_url: str = ""
    """Address under which others reach this Mailroom, for the links in deliveries, such as
    `https://mailroom.example.com`. Empty: links begin with the path."""

    @property
    def delivers(self) -> bool:
        """Whether finished emails go anywhere."""
        return bool(self.sync_url or self.sync)

    @property
    def sync_origin(self) -> Origin:
        """Who gets deliveries; of a setting that is there."""
        return origin_of(self.sync_url)

    def is_near(self, origin: Origin) -> bool:
        """Whether somebody is on this machine, as a receiver may be in development."""
        return not self.is_production and origin.host in LOOPBACK

    @field_validator("sync_secrets", mode="before")
    @classmethod
    def _split_sync_secrets(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        secrets = tuple(split(value.replace("\n", ",")))
        for number, secret in enumerate(secrets, start=1):
            check_secret(f"secret {number}", secret)
        return secrets

    @field_validator("sync_retry_seconds", mode="before")
    @classmethod
    def _split_pauses(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            pauses = tuple(float(entry) for entry in split(value))
        except ValueError:
            pauses = ()
        are_usable = all(0 <= pause <= LONGEST_SECONDS for pause in pauses)
        if not 1 <= len(pauses) <= MOST_TRIES or not are_usable:
            raise ValueError(
                f"has to be 1 to {MOST_TRIES} pauses in seconds, such as 0,5,300, each of "
                f"{LONGEST_SECONDS} at most"
            )
        if pauses[0] != 0:
            raise ValueError("has to begin with 0, since the first try is at once: such as 0,5,300")
        return pauses

    @model_validator(mode="after")
    def _check_delivery(self) -> Self:
        if self.sync_url and self.sync:
            raise ValueError("set MAILROOM_SYNC_URL or MAILROOM_SYNC, not both")
        if self.sync_check_url and not self.sync_url:
            raise ValueError("MAILROOM_SYNC_CHECK_URL is of use only beside MAILROOM_SYNC_URL")
        for name, url in (
            ("MAILROOM_SYNC_URL", self.sync_url),
            ("MAILROOM_SYNC_CHECK_URL", self.sync_check_url),
        ):
            if url:
                self._check_receiver_url(name, url)
        if self.sync_url and not self.sync_secrets:
            raise ValueError(
                "MAILROOM_SYNC_SECRETS is missing: deliveries are signed. Make one with "
                f"`{MAKE_A_SIGNING_SECRET}`, and give it to the receiver, too"
            )
        if self.public_url:
            check_url("MAILROOM_PUBLIC_URL", self.public_url)
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
                raise ValueError(
                    "MAILROOM_PUBLIC_URL has to be such as https://mailroom.example.com"
                )
        return self

    def _check_receiver_url(self, name: str, url: str) -> None:
        check_url(name, url)
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                f"{name} holds a user or a password: remove them. Requests are signed "
                "by MAILROOM_SYNC_SECRETS, by which the receiver knows them"
            )
        if parts.fragment:
            raise ValueError(f"{name} has a part behind `#`, which is never sent")
        try:
            origin = origin_of(url)
        except ValueError:
            raise ValueError(f"{name} has to be such as https://crm.example.com/mailroom") from None
        is_named = origin in self.outbound_internal_hosts
        if origin.scheme != "https" and not is_named and not self.is_near(origin):
            raise ValueError(
                f"{name} has to begin with https://. A receiver in your own network that "
                "has no encryption is named in MAILROOM_OUTBOUND_INTERNAL_HOSTS as well: "
                f"http://{origin.host}:{origin.port}"
            )


def origin_of(url: str) -> Origin:
    """Whom a URL leads to.

    Raises:
        ValueError: nowhere.
    """
    parts = urlsplit(url)
    return Origin.parse(f"{parts.scheme}://{parts.netloc}")
