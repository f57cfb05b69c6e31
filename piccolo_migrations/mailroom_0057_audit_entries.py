"""The audit log. A new table: no email waits for it."""

from piccolo.columns import JSONB, UUID, BigInt, Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:57:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "audit_entries"

TABLE = {"table_class_name": "AuditEntry", "tablename": "audit_entries"}
NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    manager.add_table(class_name="AuditEntry", tablename="audit_entries")
    add("id", UUID, primary_key=True, default=UUID4())
    add("at", Timestamptz, default=TimestamptzNow())
    add("actor_kind", Varchar, length=20, default="")
    add("actor", Varchar, length=255, default="")
    add("user_id", Integer, **NULL)
    add("door", Varchar, length=20, default="")
    add("address", Varchar, length=255, **NULL)
    add("act", Varchar, length=60, default="")
    add("object", Varchar, length=255, **NULL)
    add("result", Varchar, length=20, default="")
    add("changed", BigInt, **NULL)
    add("details", JSONB, **NULL)
    add("request_id", UUID, **NULL)
    manager.build_index("ix_audit_entries_at", "audit_entries (at, id)")
    for column in ("actor", "act", "object"):
        manager.build_index(f"ix_audit_entries_{column}", f"audit_entries ({column}, at, id)")
    return manager
