"""The index by which events that the receiver could not be told are counted."""

from app.database.online_migration import OnlineMigration

ID = "2026-11-27T01:58:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_sync_events_failed"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index("ix_sync_events_failed", "sync_events (id) WHERE sync_status = 'failed'")
    return manager
