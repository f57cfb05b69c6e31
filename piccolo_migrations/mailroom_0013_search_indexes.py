"""The indexes by which emails are listed, newest first, and found by ticket and sender.

They are built without blocking writes.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from app.migrations import build_index, drop_index

ID = "2026-11-24T09:00:05:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_received, _ticket, _sender"

INDEXES = {
    "ix_incoming_emails_received": "incoming_emails (received_at, id)",
    "ix_incoming_emails_ticket": "incoming_emails (zendesk_ticket_id)",
    "ix_incoming_emails_sender": "incoming_emails (lower(from_email))",
}


async def build() -> None:
    for name, definition in INDEXES.items():
        await build_index(name, definition)


async def drop() -> None:
    for name in INDEXES:
        await drop_index(name)


async def forwards() -> MigrationManager:
    manager = MigrationManager(
        migration_id=ID,
        app_name="mailroom",
        description=DESCRIPTION,
        wrap_in_transaction=False,
    )
    manager.add_raw(build)
    manager.add_raw_backwards(drop)
    return manager
