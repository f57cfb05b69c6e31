"""Whether processing is paused, by whom and why. A new table: no email waits for it."""

from piccolo.columns import Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:04:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "processing_pauses"

TABLE = {"table_class_name": "ProcessingPause", "tablename": "processing_pauses"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="ProcessingPause", tablename="processing_pauses")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("name", Varchar, length=100, primary_key=True, default="")
    add("since", Timestamptz, default=TimestamptzNow())
    add("who", Varchar, length=255, default="")
    add("reason", Varchar, length=500, default="")
    return manager
