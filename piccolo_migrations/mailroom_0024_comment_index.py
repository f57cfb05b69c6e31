"""The index by which an email is found by its comment."""

from app.online_migration import OnlineMigration

ID = "2026-11-25T00:24:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_incoming_emails_comment"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_incoming_emails_comment",
        "incoming_emails (zendesk_comment_id) WHERE zendesk_comment_id IS NOT NULL",
    )
    return manager
