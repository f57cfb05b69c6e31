"""What Mailroom may call."""

import ssl
from pathlib import Path
from typing import Annotated, Self

from pydantic import field_validator, model_validator
from pydantic_settings import NoDecode

from app.http.host_names import Origin
from app.setting_groups.group import SettingGroup, split


class OutboundSettings(SettingGroup):
    """Calls into private networks, and whom they trust."""

    outbound_internal_hosts: Annotated[tuple[Origin, ...], NoDecode] = ()
    """What Mailroom may call in a private network, comma-separated: `host`, `host:port` or
    `http://host:port`. All else that it calls has a public address, and https at port 443."""

    outbound_ca_file: Path | None = None
    """File with certificate authorities (PEM) that are trusted beside the system's."""

    outbound_open_loopback: bool = False
    """Whether Mailroom may call this machine itself, at any port. Development only."""

    @field_validator("outbound_internal_hosts", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(Origin.parse(entry) for entry in split(value))
        except ValueError as error:
            raise ValueError(
                f"{error}: write `crm.internal`, `crm.internal:8443` or `http://crm.internal:8080`"
            ) from None

    @field_validator("outbound_ca_file")
    @classmethod
    def _refuse_what_holds_no_certificate(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            ssl.create_default_context().load_verify_locations(cafile=value)
        except OSError as error:
            # An SSLError, too.
            raise ValueError(f"{value} holds no certificates that can be read") from error
        return value

    @model_validator(mode="after")
    def _refuse_an_open_loopback(self) -> Self:
        if self.is_production and self.outbound_open_loopback:
            raise ValueError(
                "MAILROOM_OUTBOUND_OPEN_LOOPBACK is for development only: unset it in production"
            )
        return self
