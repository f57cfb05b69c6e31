"""Delivery of a finished email to the user's own system, and the key that finds duplicates."""

from enum import Enum

from piccolo.columns import Integer, Text, Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-09-15T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "saga infrastructure: sync_status, sync_error, sync_retry_count, idempotency_key"

TABLE = {"table_class_name": "IncomingEmail", "tablename": "incoming_emails"}

SyncStatus = Enum(
    "SyncStatus",
    {
        "PENDING": "pending",
        "SYNCED": "synced",
        "FAILED": "failed",
        "NOT_APPLICABLE": "not_applicable",
    },
)


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_column(
        **TABLE,
        column_name="sync_status",
        column_class=Varchar,
        params={"length": 20, "default": SyncStatus.NOT_APPLICABLE, "choices": SyncStatus},
    )
    manager.add_column(
        **TABLE,
        column_name="sync_error",
        column_class=Text,
        params={"null": True, "default": None},
    )
    manager.add_column(
        **TABLE, column_name="sync_retry_count", column_class=Integer, params={"default": 0}
    )
    manager.add_column(
        **TABLE,
        column_name="idempotency_key",
        column_class=Varchar,
        params={"length": 64, "null": True, "default": None, "unique": True},
    )
    return manager
