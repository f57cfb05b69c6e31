"""The quarantine of refused webhooks, and the count of those it had no room for."""

from enum import Enum

from piccolo.columns import JSON, UUID, BigInt, Bytea, Date, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.columns.indexes import IndexMethod

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "quarantined_webhooks, quarantine_drops"

RefusalReason = Enum(
    "RefusalReason",
    {
        "SIGNATURE": "signature",
        "UNREADABLE": "unreadable",
        "INVALID": "invalid",
        "TOO_LARGE": "too_large",
        "MEDIA_TYPE": "media_type",
    },
)

INDEX = {"index": True, "index_method": IndexMethod.btree}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="QuarantinedWebhook",
            tablename="quarantined_webhooks",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="QuarantinedWebhook", tablename="quarantined_webhooks")
    add("id", UUID, primary_key=True, default=UUID4())
    add("received_at", Timestamptz, default=TimestamptzNow(), **INDEX)
    add("reason", Varchar, length=20, default="", choices=RefusalReason)
    add("detail", Text, default="")
    add("remote_address", Varchar, length=64, default="", **INDEX)
    add("headers", JSON, default="{}")
    add("body", Bytea, null=True, default=None)
    add("size", Integer, default=0)

    manager.add_table(class_name="QuarantineDrop", tablename="quarantine_drops")
    for name, column_class, params in (
        ("day", Date, {"primary_key": True}),
        ("dropped", BigInt, {"default": 0}),
    ):
        manager.add_column(
            table_class_name="QuarantineDrop",
            tablename="quarantine_drops",
            column_name=name,
            column_class=column_class,
            params=params,
        )
    return manager
