"""How many passwords were tried from where, counted for all web processes together."""

from piccolo.columns import Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-25T00:19:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "login_attempts"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="LoginAttempts",
            tablename="login_attempts",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="LoginAttempts", tablename="login_attempts")
    add("network", Varchar, length=64, primary_key=True, default="")
    add("began_at", Timestamptz, default=TimestamptzNow())
    add("attempts", Integer, default=0)
    return manager
