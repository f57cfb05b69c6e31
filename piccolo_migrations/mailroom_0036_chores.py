"""What one process at a time does now and then. A new table: no email waits for it."""

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:36:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "chores"

NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="ChoreRecord",
            tablename="chores",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="ChoreRecord", tablename="chores")
    add("name", Varchar, length=100, primary_key=True, default="")
    add("token", UUID, **NULL)
    add("lease_expires_at", Timestamptz, **NULL)
    add("running_by", Varchar, length=255, **NULL)
    add("next_run_at", Timestamptz, default=TimestamptzNow())
    add("last_started_at", Timestamptz, **NULL)
    add("last_ended_at", Timestamptz, **NULL)
    add("last_ok_at", Timestamptz, **NULL)
    add("failures", Integer, default=0)
    add("last_error", Text, **NULL)
    add("last_note", Text, **NULL)
    return manager
