"""The bearer tokens of the HTTP API."""

from enum import Enum

from piccolo.columns import UUID, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:04:000000"
VERSION = "1.38.0"
DESCRIPTION = "api_tokens"

Scope = Enum("Scope", {"READ": "read", "OPERATE": "operate"})


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="ApiToken",
            tablename="api_tokens",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="ApiToken", tablename="api_tokens")
    add("id", UUID, primary_key=True, default=UUID4())
    add("name", Varchar, length=100, unique=True, default="")
    add("token_hash", Varchar, length=64, unique=True, default="")
    add("scope", Varchar, length=20, default="read", choices=Scope)
    add("created_at", Timestamptz, default=TimestamptzNow())
    add("last_used_at", Timestamptz, null=True, default=None)
    add("revoked_at", Timestamptz, null=True, default=None)
    return manager
