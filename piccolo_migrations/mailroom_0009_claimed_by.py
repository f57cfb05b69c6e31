"""Which worker holds an email, or held it last."""

from piccolo.columns import Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:01:000000"
VERSION = "1.38.0"
DESCRIPTION = "claimed_by"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_column(
        table_class_name="IncomingEmail",
        tablename="incoming_emails",
        column_name="claimed_by",
        column_class=Varchar,
        params={"length": 255, "null": True, "default": None},
    )
    return manager
