"""Bulk actions and the emails that each means. Two new tables: no email waits for it."""

from enum import Enum

from piccolo.columns import JSONB, UUID, BigInt, BigSerial, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:55:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "bulk_actions, bulk_action_emails"

NULL = {"null": True, "default": None}
TABLES = {"BulkAction": "bulk_actions", "BulkActionEmail": "bulk_action_emails"}
BulkState = Enum("BulkState", {"RUNNING": "running", "STOPPED": "stopped", "ENDED": "ended"})


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(table: str, name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name=table,
            tablename=TABLES[table],
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    for class_name, tablename in TABLES.items():
        manager.add_table(class_name=class_name, tablename=tablename)

    add("BulkAction", "id", UUID, primary_key=True, default=UUID4())
    add("BulkAction", "action", Varchar, length=20, default="")
    add("BulkAction", "filter", Text, **NULL)
    add("BulkAction", "reason", Text, **NULL)
    add("BulkAction", "asked_by", Varchar, length=255, default="")
    add("BulkAction", "asked_at", Timestamptz, default=TimestamptzNow())
    add("BulkAction", "state", Varchar, length=20, default="running", choices=BulkState)
    for counted in ("total", "done", "skipped", "failed"):
        add("BulkAction", counted, Integer, default=0)
    add("BulkAction", "reasons", JSONB, default="{}")
    add("BulkAction", "position", BigInt, default=0)
    add("BulkAction", "worked_at", Timestamptz, default=TimestamptzNow())
    add("BulkAction", "ended_at", Timestamptz, **NULL)
    add("BulkAction", "stopped_by", Varchar, length=255, **NULL)

    add("BulkActionEmail", "id", BigSerial, primary_key=True)
    add("BulkActionEmail", "action", UUID, default=None)
    add("BulkActionEmail", "email", UUID, default=None)
    add("BulkActionEmail", "why", Varchar, length=40, **NULL)

    manager.build_index("ix_bulk_actions_asked", "bulk_actions (asked_at DESC, id DESC)")
    manager.build_index(
        "ix_bulk_actions_running", "bulk_actions (worked_at) WHERE state = 'running'"
    )
    manager.build_index("ix_bulk_action_emails_line", "bulk_action_emails (action, id)")
    manager.build_index(
        "ix_bulk_action_emails_left", "bulk_action_emails (action, id) WHERE why IS NOT NULL"
    )
    return manager
