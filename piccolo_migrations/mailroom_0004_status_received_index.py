"""The index by which the Dispatcher finds the oldest email in a state.

It is built with CREATE INDEX CONCURRENTLY, so a table that is already large takes email all the
while; that statement cannot run inside a transaction, hence `wrap_in_transaction=False` and a file
of its own. Nothing has to be done by hand.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from app.migrations import build_index, drop_index

ID = "2026-10-01T09:00:01:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_incoming_emails_status_received"

INDEX = "ix_incoming_emails_status_received"


async def build() -> None:
    await build_index(
        INDEX,
        "incoming_emails (processing_status, received_at)",
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
