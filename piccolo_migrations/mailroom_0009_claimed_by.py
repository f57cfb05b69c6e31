"""Which worker holds an email, or held it last."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import Varchar

ID = "2026-11-24T09:00:01:000000"
VERSION = "1.38.0"
DESCRIPTION = "claimed_by"


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="mailroom", description=DESCRIPTION)
    manager.add_column(
        table_class_name="IncomingEmail",
        tablename="incoming_emails",
        column_name="claimed_by",
        column_class=Varchar,
        params={"length": 255, "null": True, "default": None},
    )
    return manager
