"""The index by which the Dispatcher finds emails that were brought back and have no message.

It holds only those, so it is tiny.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-01T09:00:02:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_incoming_emails_unsent"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_incoming_emails_unsent",
        "incoming_emails (received_at) WHERE processing_status = 'queued' AND queued_at IS NULL",
    )
    return manager
