"""The database refuses states that do not exist, whoever writes them."""

from piccolo.constraints import Check

from app.database.online_migration import OnlineMigration

ID = "2026-11-01T09:00:01:000000"
VERSION = "1.38.0"
DESCRIPTION = "CHECK constraints on processing_status and sync_status"

CONDITIONS = {
    "check_processing_status": (
        "processing_status IN ('received', 'queued', 'processing', 'completed', 'failed')"
    ),
    "check_sync_status": "sync_status IN ('pending', 'synced', 'failed', 'not_applicable')",
}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    for name, condition in CONDITIONS.items():
        manager.add_constraint(
            table_class_name="IncomingEmail",
            tablename="incoming_emails",
            constraint_name=name,
            constraint_class=Check,
            params={"condition": condition},
        )
    return manager
