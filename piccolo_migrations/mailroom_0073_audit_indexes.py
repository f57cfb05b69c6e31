"""The audit log is searched by what became of an act and by its door without reading all of it."""

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:13:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_audit_entries_result, ix_audit_entries_door"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    for column in ("result", "door"):
        manager.build_index(f"ix_audit_entries_{column}", f"audit_entries ({column}, at, id)")
    return manager
