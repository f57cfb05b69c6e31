"""When Zendesk signed what an email came with. No default, so no row is written anew; older
processes leave it out, and what they store is known by when it was stored, as before.
"""

from piccolo.columns import Timestamptz

from app.database.online_migration import OnlineMigration

ID = "2026-11-27T01:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "signed_at of incoming_emails"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_column(
        table_class_name="IncomingEmail",
        tablename="incoming_emails",
        column_name="signed_at",
        column_class=Timestamptz,
        params={"null": True, "default": None},
    )
    return manager
