"""The indexes by which the overview counts what came and what was finished in the last day.

The second holds the moments of a run as well, so that the longest runs are found without reading
the emails.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:03:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_created, ix_incoming_emails_finished"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index("ix_incoming_emails_created", "incoming_emails (created_at)")
    manager.build_index(
        "ix_incoming_emails_finished",
        "incoming_emails (processing_status, completed_at) INCLUDE (started_at, processed_at)"
        " WHERE completed_at IS NOT NULL",
    )
    return manager
