"""The files of emails, and what is to be erased of them. Two new tables: no email waits for it."""

from enum import Enum

from piccolo.columns import UUID, BigInt, Boolean, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Check, Unique

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T00:25:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "email_attachments, attachment_erasures"

AttachmentState = Enum(
    "AttachmentState",
    {
        "PENDING": "pending",
        "KEPT": "kept",
        "SKIPPED": "skipped",
        "FAILED": "failed",
        "FLAGGED": "flagged",
    },
)
TABLE = {"table_class_name": "EmailAttachment", "tablename": "email_attachments"}
NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    manager.add_table(class_name="EmailAttachment", tablename="email_attachments")
    add("id", UUID, primary_key=True, default=UUID4())
    add("email", UUID, default=None)
    add("position", Integer, default=0)
    add("url", Text, default="", secret=True)
    add("filename", Text, **NULL)
    add("claimed_content_type", Text, **NULL)
    add("content_type", Text, **NULL)
    add("claimed_size", BigInt, **NULL)
    add("size", BigInt, **NULL)
    add("sha256", Varchar, length=64, **NULL)
    add("storage_key", Text, **NULL)
    add("is_inline", Boolean, default=False)
    add("state", Varchar, length=20, default="pending", choices=AttachmentState)
    add("reason", Varchar, length=40, **NULL)
    add("detail", Text, **NULL)
    add("tries", Integer, default=0)
    add("next_attempt_at", Timestamptz, default=TimestamptzNow())
    add("token", UUID, **NULL)
    add("created_at", Timestamptz, default=TimestamptzNow())
    add("fetched_at", Timestamptz, **NULL)
    add("ended_at", Timestamptz, **NULL)
    manager.add_constraint(
        **TABLE,
        constraint_name="check_attachment_state",
        constraint_class=Check,
        params={"condition": "state IN ('pending', 'kept', 'skipped', 'failed', 'flagged')"},
    )
    manager.add_constraint(
        **TABLE,
        constraint_name="unique_position",
        constraint_class=Unique,
        params={"columns": ["email", "position"], "nulls_distinct": True},
    )
    # What is to be begun, as it falls due; only that is in this index.
    manager.build_index(
        "ix_email_attachments_due", "email_attachments (next_attempt_at) WHERE state = 'pending'"
    )
    # Whether an email still needs the bytes of a hash.
    manager.build_index(
        "ix_email_attachments_sha256", "email_attachments (sha256) WHERE sha256 IS NOT NULL"
    )
    # Counts and bytes by state, and what ended since a moment, without a look at the table.
    manager.build_index(
        "ix_email_attachments_state", "email_attachments (state, ended_at) INCLUDE (size)"
    )

    manager.add_table(class_name="AttachmentErasure", tablename="attachment_erasures")
    for name, column_class, params in (
        ("sha256", Varchar, {"length": 64, "primary_key": True, "default": ""}),
        ("asked_at", Timestamptz, {"default": TimestamptzNow()}),
    ):
        manager.add_column(
            table_class_name="AttachmentErasure",
            tablename="attachment_erasures",
            column_name=name,
            column_class=column_class,
            params=params,
        )
    return manager
