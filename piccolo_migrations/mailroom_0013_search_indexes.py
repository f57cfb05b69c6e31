"""The indexes by which emails are listed, newest first, and found by ticket and sender."""

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:05:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_received, _ticket, _sender"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index("ix_incoming_emails_received", "incoming_emails (received_at, id)")
    manager.build_index("ix_incoming_emails_ticket", "incoming_emails (zendesk_ticket_id)")
    manager.build_index("ix_incoming_emails_sender", "incoming_emails (lower(from_email))")
    return manager
