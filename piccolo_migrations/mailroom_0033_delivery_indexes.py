"""The indexes by which finished emails are found that are due to be delivered, and those of a
ticket that are not delivered yet.

Both hold only what is pending: where nothing is delivered, they are empty and cost nothing. `IS
TRUE` keeps other indexes of what is pending from being taken in their place.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:33:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_deliver, ix_incoming_emails_undelivered"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_incoming_emails_deliver",
        "incoming_emails (sync_next_attempt_at) WHERE (sync_status = 'pending') IS TRUE",
    )
    manager.build_index(
        "ix_incoming_emails_undelivered",
        "incoming_emails (zendesk_ticket_id, received_at, id)"
        " WHERE (sync_status = 'pending') IS TRUE",
    )
    return manager
