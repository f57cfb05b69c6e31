"""The index by which the Dispatcher finds emails that were brought back and have no message.

It holds only those, so it is tiny; it is built without blocking writes.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from app.migrations import build_index, drop_index

ID = "2026-11-01T09:00:02:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_incoming_emails_unsent"

INDEX = "ix_incoming_emails_unsent"


async def build() -> None:
    await build_index(
        INDEX,
        "incoming_emails (received_at) WHERE processing_status = 'queued' AND queued_at IS NULL",
    )


async def drop() -> None:
    await drop_index(INDEX)


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
