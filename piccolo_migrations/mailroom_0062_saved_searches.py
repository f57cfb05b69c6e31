"""Searches that people gave a name. A new table: no email waits for it."""

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Unique

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:02:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "saved_searches"

TABLE = {"table_class_name": "SavedSearch", "tablename": "saved_searches"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="SavedSearch", tablename="saved_searches")
    for name, column, params in (
        ("id", UUID, {"primary_key": True, "default": UUID4()}),
        ("user_id", Integer, {"default": 0}),
        ("name", Varchar, {"length": 60, "default": ""}),
        ("search", Text, {"default": ""}),
        ("created_at", Timestamptz, {"default": TimestamptzNow()}),
    ):
        manager.add_column(**TABLE, column_name=name, column_class=column, params=params)
    manager.add_constraint(
        "SavedSearch",
        "saved_searches",
        "one_of_a_name",
        Unique,
        params={"columns": ["user_id", "name"], "nulls_distinct": True},
    )
    return manager
