"""The indexes by which the Dispatcher finds queued emails that are due to be sent, and counts those
that were sent.

The first takes the place of `ix_incoming_emails_unsent`. Both hold queued emails only.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:02:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_due, ix_incoming_emails_sent"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_incoming_emails_due",
        "incoming_emails (COALESCE(next_attempt_at, '-infinity'), received_at)"
        " WHERE processing_status = 'queued' AND queued_at IS NULL",
    )
    manager.build_index(
        "ix_incoming_emails_sent",
        "incoming_emails (queued_at) WHERE processing_status = 'queued' AND queued_at IS NOT NULL",
    )
    manager.drop_index(
        "ix_incoming_emails_unsent",
        "incoming_emails (received_at) WHERE processing_status = 'queued' AND queued_at IS NULL",
    )
    return manager
