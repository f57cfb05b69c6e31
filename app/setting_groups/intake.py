"""Webhooks: which are accepted, how much may wait, and how long refused ones are kept."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.setting_groups.group import LONGEST_DAYS, LONGEST_SECONDS, SettingGroup
from app.setting_groups.secrets import WebhookSecret, check_for_production, parse_secrets


class IntakeSettings(SettingGroup):
    """The Intake and the quarantine."""

    webhook_secrets: Annotated[tuple[WebhookSecret, ...], NoDecode] = Field(default=(), repr=False)
    """Signing secrets of the Zendesk webhook, comma-separated, each `secret` or `label:secret`.
    All are accepted, so that one can be rotated without losing email."""

    accept_unsigned: bool = False
    """Accept webhooks that carry no signature. Development only."""

    day_first: bool = False
    """Whether `03/11/2026` in `received_at` is the 3 November; else it is March 11, as in the US.
    `03.11.2026` is in November, and `2026-03-11` in March, in any case."""

    webhook_fields: Annotated[tuple[tuple[str, ...], ...], NoDecode] = ()
    """The fields of the trigger's JSON in their order, comma-separated; `;` between several
    triggers. They tell where a text ends whose quotes are not escaped. Left empty, they are learned
    from the payloads that come whole."""

    signature_max_age_seconds: int = Field(default=86_400, ge=1, le=LONGEST_SECONDS)
    """How far a signature's timestamp may lie from our clock. Generous on purpose: a late
    delivery is an email, and a replay is recognised as a duplicate."""

    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    """Largest webhook body that is read; larger ones are answered 413."""

    intake_deadline_seconds: float = Field(default=8.0, gt=0, le=LONGEST_SECONDS)
    """Time from the first byte of a webhook to its answer; then 503. Zendesk gives up at 10 to
    12 seconds."""

    intake_max_waiting_rows: int = Field(default=5_000, ge=1)
    """Emails that may wait for the database in one web process; further ones are answered 503."""

    intake_max_waiting_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Bytes of request bodies that one web process holds at once; further ones are answered 503.
    Those above 64 KiB may have three quarters, so that small emails find room."""

    intake_batch_rows: int = Field(default=256, ge=1)
    """Most emails that share one INSERT."""

    quarantine_max_rows: int = Field(default=20_000, ge=0)
    """Refused webhooks that are kept; further ones are counted only."""

    quarantine_max_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Bytes of refused webhooks that are kept."""

    quarantine_max_age_days: float = Field(default=30.0, ge=0, le=LONGEST_DAYS)
    """Days after which a refused webhook is deleted. 0: never."""

    quarantine_max_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the quarantine that one sender's address may take with webhooks whose signature is
    missing or wrong."""

    quarantine_unsigned_share: float = Field(default=0.8, gt=0, le=1)
    """Share of the quarantine that webhooks whose signature is missing or wrong may take together.
    The rest is kept for those that Zendesk signed and a broken template spoilt."""

    @field_validator("webhook_fields", mode="before")
    @classmethod
    def _split_fields(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        orders = [
            tuple(name.strip() for name in order.split(",") if name.strip())
            for order in value.split(";")
        ]
        for order in filter(None, orders):
            if missing := [name for name in ("ticket_id", "from_email") if name not in order]:
                raise ValueError(
                    f"{' and '.join(missing)} is missing: name all fields of the trigger's JSON in "
                    "their order, such as ticket_id,from_email,subject,body_text"
                )
            if len(set(order)) < len(order) or any('"' in name or "\\" in name for name in order):
                raise ValueError("a field is named twice, or holds a quote or a backslash")
        return tuple(filter(None, orders))

    @model_validator(mode="before")
    @classmethod
    def _split_secrets(cls, values: dict[str, object]) -> dict[str, object]:
        name = next((n for n in values if n.lower().endswith("webhook_secrets")), None)
        if name is not None and isinstance(values[name], str):
            return {**values, name: parse_secrets(str(values[name]))}
        return values

    @model_validator(mode="after")
    def _check_intake(self) -> Self:
        if self.max_body_bytes > self.intake_max_waiting_bytes:
            raise ValueError(
                "MAILROOM_MAX_BODY_BYTES is larger than MAILROOM_INTAKE_MAX_WAITING_BYTES, so the "
                "largest emails could never be taken"
            )
        if self.is_production:
            check_for_production(self.webhook_secrets)
            if self.accept_unsigned:
                raise ValueError(
                    "MAILROOM_ACCEPT_UNSIGNED is for development only: unset it in production"
                )
        return self
