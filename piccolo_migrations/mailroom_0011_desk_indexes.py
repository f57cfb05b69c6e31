"""The indexes by which the overview counts what came and what was finished in the last day.

The second holds the moments of a run as well, so that the longest runs are found without reading
the emails. Both are built without blocking writes.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from app.migrations import build_index, drop_index

ID = "2026-11-24T09:00:03:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_created, ix_incoming_emails_finished"

CREATED_INDEX = "ix_incoming_emails_created"
FINISHED_INDEX = "ix_incoming_emails_finished"


async def build() -> None:
    await build_index(CREATED_INDEX, "incoming_emails (created_at)")
    await build_index(
        FINISHED_INDEX,
        "incoming_emails (processing_status, completed_at) INCLUDE (started_at, processed_at)"
        " WHERE completed_at IS NOT NULL",
    )


async def drop() -> None:
    await drop_index(FINISHED_INDEX)
    await drop_index(CREATED_INDEX)


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
