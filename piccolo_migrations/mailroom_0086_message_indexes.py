"""The indexes of queued emails with a message, and of those without one, in a form that no other
index serves.

They take the places of `ix_incoming_emails_sent` and `ix_incoming_emails_due`. Who asked as those
were made was at times, by statistics, given the index on state and time, and walked over all emails
that had been queued since the last vacuum.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-27T20:25:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_with_message, ix_incoming_emails_without_message"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_incoming_emails_with_message",
        "incoming_emails (queued_at)"
        " WHERE (processing_status = 'queued') IS TRUE AND queued_at IS NOT NULL",
    )
    manager.build_index(
        "ix_incoming_emails_without_message",
        "incoming_emails (COALESCE(next_attempt_at, '-infinity'), received_at)"
        " WHERE (processing_status = 'queued') IS TRUE AND queued_at IS NULL",
    )
    manager.drop_index(
        "ix_incoming_emails_sent",
        "incoming_emails (queued_at) WHERE processing_status = 'queued' AND queued_at IS NOT NULL",
    )
    manager.drop_index(
        "ix_incoming_emails_due",
        "incoming_emails (COALESCE(next_attempt_at, '-infinity'), received_at)"
        " WHERE processing_status = 'queued' AND queued_at IS NULL",
    )
    return manager
