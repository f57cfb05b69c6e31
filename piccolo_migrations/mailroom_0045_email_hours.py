"""How many emails came in each hour of the last weeks. A new table: no email waits for it."""

from piccolo.columns import Integer, Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:45:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "email_hours"

TABLE = {"table_class_name": "EmailHour", "tablename": "email_hours"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="EmailHour", tablename="email_hours")
    manager.add_column(
        **TABLE,
        column_name="hour",
        column_class=Timestamptz,
        params={"primary_key": True, "default": TimestamptzNow()},
    )
    manager.add_column(**TABLE, column_name="emails", column_class=Integer, params={"default": 0})
    return manager
