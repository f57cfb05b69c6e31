"""The index by which an email is found by its comment. It is built without blocking writes."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from app.migrations import build_index, drop_index

ID = "2026-11-25T00:24:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_incoming_emails_comment"

NAME = "ix_incoming_emails_comment"
DEFINITION = "incoming_emails (zendesk_comment_id) WHERE zendesk_comment_id IS NOT NULL"


async def build() -> None:
    await build_index(NAME, DEFINITION)


async def drop() -> None:
    await drop_index(NAME)


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
