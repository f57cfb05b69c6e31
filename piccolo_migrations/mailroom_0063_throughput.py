"""How many emails came and ended in each minute of the last weeks. A new table: no email waits for
it."""

from piccolo.columns import JSONB, Integer, Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:03:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "throughput"

TABLE = {"table_class_name": "ThroughputMinute", "tablename": "throughput"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="ThroughputMinute", tablename="throughput")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("minute", Timestamptz, primary_key=True, default=TimestamptzNow())
    for name in ("accepted", "completed", "failed", "retried"):
        add(name, Integer, null=True, default=None)
    add("durations", JSONB, default="{}")
    for name in ("backlog", "oldest_seconds"):
        add(name, Integer, null=True, default=None)
    return manager
