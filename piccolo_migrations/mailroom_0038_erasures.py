"""Erasures and tombstones: new tables, so no email waits for them."""

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.columns.indexes import IndexMethod

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:38:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "erasures, tombstones"

INDEX = {"index": True, "index_method": IndexMethod.btree}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(table: str, name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name=table,
            tablename={"Erasure": "erasures", "Tombstone": "tombstones"}[table],
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="Erasure", tablename="erasures")
    add("Erasure", "id", UUID, primary_key=True, default=UUID4())
    add("Erasure", "kind", Varchar, length=20, default="")
    add("Erasure", "criterion", Text, null=True, default=None)
    add("Erasure", "criterion_hash", Varchar, length=128, default="")
    add("Erasure", "asked_by", Varchar, length=255, default="")
    add("Erasure", "asked_at", Timestamptz, default=TimestamptzNow())
    add("Erasure", "worked_at", Timestamptz, default=TimestamptzNow())
    add("Erasure", "ended_at", Timestamptz, null=True, default=None)
    for counted in ("emails", "files", "entries", "deliveries", "refused", "waiting_files"):
        add("Erasure", counted, Integer, default=0)

    manager.add_table(class_name="Tombstone", tablename="tombstones")
    add("Tombstone", "key", Varchar, length=255, primary_key=True, default="")
    add("Tombstone", "email", UUID, default=None)
    add("Tombstone", "erasure", UUID, default=None)
    add("Tombstone", "created_at", Timestamptz, default=TimestamptzNow(), **INDEX)
    return manager
