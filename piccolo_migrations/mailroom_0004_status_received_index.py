"""The index by which the Dispatcher finds the oldest email in a state."""

from app.database.online_migration import OnlineMigration

ID = "2026-10-01T09:00:01:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_incoming_emails_status_received"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_incoming_emails_status_received", "incoming_emails (processing_status, received_at)"
    )
    return manager
