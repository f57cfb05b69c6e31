"""What happens to an email besides its job: a new table, so no email waits for it."""

from piccolo.columns import UUID, BigSerial, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:34:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "email_events"

TABLE = {"table_class_name": "EmailEvent", "tablename": "email_events"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    manager.add_table(class_name="EmailEvent", tablename="email_events")
    add("id", BigSerial, primary_key=True)
    add("email", UUID, default=None)
    add("at", Timestamptz, default=TimestamptzNow())
    add("kind", Varchar, length=20, default="")
    add("who", Varchar, length=255, null=True, default=None)
    add("worker", Varchar, length=255, null=True, default=None)
    add("attempt", Integer, null=True, default=None)
    add("text", Text, default="")
    # One email's story, in its order.
    manager.build_index("ix_email_events_email", "email_events (email, at, id)")
    return manager
