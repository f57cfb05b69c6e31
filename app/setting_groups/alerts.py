"""Who is told of alarms, and when."""

import hashlib
import re
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.http.host_names import host_name
from app.setting_groups.group import LONGEST_SECONDS, SettingGroup, check_secret, split

FORMATS = (
    "https://host/path, slack+https://hooks.slack.com/services/..., "
    "smtp://user:password@host:587?to=ops@example.com&from=mailroom@example.com or smtps://..."
)
_ADDRESS = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")
_MAIL_PORTS = {"smtp": 587, "smtps": 465}


class AlertWay(StrEnum):
    """How somebody is told."""

    WEBHOOK = "webhook"
    """A signed POST, as Standard Webhooks has it."""

    SLACK = "slack"
    """The format of Slack's incoming webhooks, which others take, too."""

    MAIL = "mail"
    """Plain mail over SMTP."""


@attrs.frozen
class AlertTarget:
    """One of those who are told."""

    way: AlertWay
    host: str
    url: str = attrs.field(repr=False)
    """Of a webhook; it may hold a secret."""
    port: int = 0
    user: str = attrs.field(default="", repr=False)
    password: str = attrs.field(default="", repr=False)
    to: tuple[str, ...] = attrs.field(default=(), repr=False)
    sender: str = attrs.field(default="", repr=False)
    is_tls: bool = False
    """The connection of a mail is encrypted from its first byte on, as `smtps` has it."""
    is_plain: bool = False
    """A mail may go unencrypted, since the setting says so."""

    @property
    def label(self) -> str:
        """How operators know it; it holds no secret and no address of a person."""
        return f"{self.way} {self.host}"

    @property
    def key(self) -> str:
        """The same for as long as the same people are told, whatever their password."""
        told = "\n".join((self.way, self.host, str(self.port), self.url, *self.to))
        return hashlib.sha256(told.encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one entry of the setting.

        Raises:
            ValueError: it is none. The message does not repeat it, for it may hold a secret.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError(f"an entry is no URL: write {FORMATS}") from None
        host = host_name(parts.hostname or "")
        if host is None:
            raise ValueError(f"an entry names no host: write {FORMATS}")
        match parts.scheme:
            case "https" | "http" | "slack+https" | "slack+http":
                if parts.username is not None:
                    raise ValueError("a webhook is named without user and password")
                way = AlertWay.SLACK if parts.scheme.startswith("slack+") else AlertWay.WEBHOOK
                return cls(way, host, text.removeprefix("slack+"))
            case "smtp" | "smtps":
                query = parse_qs(parts.query)
                to = tuple(query.get("to", ()))
                senders = query.get("from", [])
                if not to or len(senders) != 1:
                    raise ValueError("a mail server needs ?to=ADDRESS&from=ADDRESS")
                if not all(_ADDRESS.fullmatch(address) for address in (*to, *senders)):
                    raise ValueError("`to` and `from` of a mail server are one address each")
                is_plain = query.get("tls") == ["none"]
                if is_plain and (parts.password or parts.scheme == "smtps"):
                    raise ValueError(
                        "tls=none goes with smtp:// alone, and with no password: it would be "
                        "readable on its way"
                    )
                return cls(
                    AlertWay.MAIL,
                    host,
                    "",
                    port=port or _MAIL_PORTS[parts.scheme],
                    user=unquote(parts.username or ""),
                    password=unquote(parts.password or ""),
                    to=to,
                    sender=senders[0],
                    is_tls=parts.scheme == "smtps",
                    is_plain=is_plain,
                )
            case _:
                raise ValueError(f"an entry begins with none of the schemes: write {FORMATS}")


class AlertSettings(SettingGroup):
    """Alarms, and who is told of them."""

    alert_url: Annotated[tuple[AlertTarget, ...], NoDecode] = Field(default=(), repr=False)
    """Who is told when an alarm begins and when it ends, comma-separated: `https://...` gets a
    signed POST, `slack+https://...` Slack's format, `smtp://user:password@host:587?to=...&from=...`
    or `smtps://...` plain mail. Empty: alarms are on the overview and in the metrics alone."""

    alert_secret: str = Field(default="", repr=False)
    """What alerts to `https://...` are signed with, as Standard Webhooks has it: `whsec_` and
    24 to 64 bytes in base64."""

    alert_settle_seconds: float = Field(default=300.0, ge=0, le=LONGEST_SECONDS)
    """How long an alarm has to be over before that is told. What begins again before is the same
    alarm."""

    @field_validator("alert_url", mode="before")
    @classmethod
    def _split_alert_url(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(AlertTarget.parse(entry) for entry in split(value))

    @model_validator(mode="after")
    def _check_alert_secret(self) -> Self:
        if self.alert_secret:
            check_secret("MAILROOM_ALERT_SECRET", self.alert_secret)
        is_signed = any(target.way is AlertWay.WEBHOOK for target in self.alert_url)
        if is_signed and not self.alert_secret:
            raise ValueError("MAILROOM_ALERT_SECRET is missing: MAILROOM_ALERT_URL names a webhook")
        return self
