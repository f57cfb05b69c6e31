"""The quarantine: webhooks that were refused, kept for a while as the bytes that came."""

from enum import StrEnum

from piccolo.columns import (
    JSON,
    UUID,
    BigInt,
    Boolean,
    Bytea,
    Date,
    Integer,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

from app.database.engine import DB


class RefusalReason(StrEnum):
    """Why a webhook was refused."""

    SIGNATURE = "signature"
    """Missing, malformed, wrong or too old: 401."""

    UNREADABLE = "unreadable"
    """Not a JSON object: 400."""

    INVALID = "invalid"
    """Fields are missing or wrong: 400."""

    TOO_LARGE = "too_large"
    """More bytes than are read: 413. Only its headers are kept."""

    MEDIA_TYPE = "media_type"
    """Not sent as plain JSON: 415."""

    UNSTORABLE = "unstorable"
    """Nothing is wrong with it, but Mailroom or its database fails on it: 503."""

    SUSPENDED = "suspended"
    """No webhook: mail that Zendesk suspended, kept from its API before it deletes it."""


AT_THE_WEBHOOK = tuple(reason for reason in RefusalReason if reason is not RefusalReason.SUSPENDED)
"""Why webhooks are refused."""


class QuarantinedWebhook(Table, tablename="quarantined_webhooks", db=DB):
    """One refused webhook. Mended secrets or templates may admit it later."""

    id = UUID(primary_key=True, default=UUID4())
    received_at = Timestamptz(default=TimestamptzNow(), index=True)
    reason = Varchar(length=20, default="", choices=RefusalReason)
    detail = Text(default="", help_text="What the sender was told")
    remote_address = Varchar(length=64, default="", index=True)
    headers = JSON(default="{}", help_text="Those that decide: signature, media type, ids")
    body = Bytea(null=True, default=None, help_text="The bytes as they came; null where not read")
    size = Integer(default=0, help_text="Bytes of the body")
    kept_bytes = Integer(default=0, help_text="Bytes of body, headers and detail together")
    is_signed = Boolean(
        default=False, help_text="Its signature was right: it is Zendesk's, and broken otherwise"
    )


class QuarantineDrop(Table, tablename="quarantine_drops", db=DB):
    """How many refused webhooks were not kept on a day, because the quarantine was full."""

    day = Date(primary_key=True)
    dropped = BigInt(default=0)
