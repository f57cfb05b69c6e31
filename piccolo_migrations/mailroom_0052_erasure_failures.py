"""How often an erasure failed, and the index by which old events for the receiver are found."""

from piccolo.columns import Integer, Text

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:52:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "failures of erasures, index ix_sync_events_synced"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    for name, column_class, params in (
        ("failures", Integer, {"default": 0}),
        ("last_error", Text, {"null": True, "default": None}),
    ):
        manager.add_column(
            table_class_name="Erasure",
            tablename="erasures",
            column_name=name,
            column_class=column_class,
            params=params,
        )
    manager.build_index(
        "ix_sync_events_synced", "sync_events (synced_at, id) WHERE sync_status = 'synced'"
    )
    return manager
