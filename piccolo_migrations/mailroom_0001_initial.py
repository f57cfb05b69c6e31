"""The archive: one row an email."""

from enum import Enum

from piccolo.columns import JSON, UUID, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.columns.indexes import IndexMethod

from app.database.online_migration import OnlineMigration

ID = "2026-09-01T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "initial: incoming_emails"

TABLE = {"table_class_name": "IncomingEmail", "tablename": "incoming_emails"}

ProcessingStatus = Enum(
    "ProcessingStatus",
    {
        "RECEIVED": "received",
        "QUEUED": "queued",
        "PROCESSING": "processing",
        "COMPLETED": "completed",
        "FAILED": "failed",
    },
)


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="IncomingEmail", tablename="incoming_emails")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("id", UUID, primary_key=True, default=UUID4())
    add("zendesk_ticket_id", Varchar, length=64, default="")
    add(
        "zendesk_webhook_id",
        Varchar,
        length=255,
        null=True,
        default=None,
        index=True,
        index_method=IndexMethod.btree,
    )
    add("from_email", Varchar, length=320, default="")
    add("from_name", Varchar, length=255, null=True, default=None)
    add("subject", Varchar, length=998, default="")
    add("raw_body_html", Text, null=True, default=None)
    add("raw_body_text", Text, null=True, default=None)
    add("cleaned_body", Text, null=True, default=None)
    add("extracted_data", JSON, null=True, default=None)
    add(
        "processing_status",
        Varchar,
        length=20,
        default=ProcessingStatus.RECEIVED,
        choices=ProcessingStatus,
    )
    add("processing_error", Text, null=True, default=None)
    add("received_at", Timestamptz, default=TimestamptzNow())
    add("processed_at", Timestamptz, null=True, default=None)
    add("created_at", Timestamptz, default=TimestamptzNow())
    add("updated_at", Timestamptz, default=TimestamptzNow())
    return manager
