"""The indexes by which the Dispatcher finds queued emails that are due to be sent, and counts those
that were sent.

The first takes the place of `ix_incoming_emails_unsent`. Both hold queued emails only; they are
built without blocking writes.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from app.migrations import build_index, drop_index

ID = "2026-11-24T09:00:02:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_incoming_emails_due, ix_incoming_emails_sent"

DUE_INDEX = "ix_incoming_emails_due"
SENT_INDEX = "ix_incoming_emails_sent"
UNSENT_INDEX = "ix_incoming_emails_unsent"


async def build() -> None:
    await build_index(
        DUE_INDEX,
        "incoming_emails (COALESCE(next_attempt_at, '-infinity'), received_at)"
        " WHERE processing_status = 'queued' AND queued_at IS NULL",
    )
    await build_index(
        SENT_INDEX,
        "incoming_emails (queued_at) WHERE processing_status = 'queued' AND queued_at IS NOT NULL",
    )
    await drop_index(UNSENT_INDEX)


async def drop() -> None:
    await build_index(
        UNSENT_INDEX,
        "incoming_emails (received_at) WHERE processing_status = 'queued' AND queued_at IS NULL",
    )
    await drop_index(SENT_INDEX)
    await drop_index(DUE_INDEX)


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
