"""From which addresses Zendesk calls webhooks. A new table: no email waits for it."""

from piccolo.columns import JSONB, BigInt, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:47:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "zendesk_ranges"

TABLE = {"table_class_name": "ZendeskRanges", "tablename": "zendesk_ranges"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="ZendeskRanges", tablename="zendesk_ranges")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("account", Varchar, length=255, primary_key=True, default="")
    add("ranges", JSONB, default="[]")
    add("fetched_at", Timestamptz, default=TimestamptzNow())
    add("outside", BigInt, default=0)
    add("outside_at", Timestamptz, null=True, default=None)
    add("hidden", BigInt, default=0)
    return manager
