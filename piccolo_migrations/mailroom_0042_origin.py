"""By which way an email came. The default is a constant, so no row is written anew; those that came
as events before are called `webhook`, too.
"""

from piccolo.columns import Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:42:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "origin of incoming_emails"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_column(
        table_class_name="IncomingEmail",
        tablename="incoming_emails",
        column_name="origin",
        column_class=Varchar,
        params={"length": 20, "default": "webhook"},
    )
    return manager
