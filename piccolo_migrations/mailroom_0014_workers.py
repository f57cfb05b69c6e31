"""The worker processes that were heard of lately."""

from piccolo.columns import Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:06:000000"
VERSION = "1.38.0"
DESCRIPTION = "workers"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="Worker",
            tablename="workers",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="Worker", tablename="workers")
    add("name", Varchar, length=255, primary_key=True, default="")
    add("threads", Integer, default=0)
    add("started_at", Timestamptz, default=TimestamptzNow())
    add("seen_at", Timestamptz, default=TimestamptzNow())
    return manager
