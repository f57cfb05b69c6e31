"""The index by which what is not delivered is found, counted and told the age of.

It holds only what is pending or was given up: where nothing is delivered it is empty.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:35:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_incoming_emails_unsynced"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_incoming_emails_unsynced",
        "incoming_emails (sync_status, completed_at) WHERE sync_status IN ('pending', 'failed')",
    )
    return manager
