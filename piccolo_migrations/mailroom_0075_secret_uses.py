"""When each signing secret was used last. A new table: no email waits for it."""

from piccolo.columns import Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:15:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "webhook_secret_uses"

TABLE = {"table_class_name": "WebhookSecretUse", "tablename": "webhook_secret_uses"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="WebhookSecretUse", tablename="webhook_secret_uses")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("fingerprint", Varchar, length=64, primary_key=True, default="")
    add("known_since", Timestamptz, default=TimestamptzNow())
    add("used_at", Timestamptz, null=True, default=None)
    return manager
