"""What the delivery of finished emails needs: the number of an email's result, when it is delivered
next, who delivers it, and when it was.

Defaults are constants, so no row is written anew.
"""

from piccolo.columns import UUID, Integer, Timestamptz

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:31:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "sync_version, sync_next_attempt_at, sync_token and others of incoming_emails"

NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    for name, column_class, params in (
        ("sync_version", Integer, {"default": 0}),
        ("sync_next_attempt_at", Timestamptz, NULL),
        ("sync_token", UUID, NULL),
        ("sync_lease_expires_at", Timestamptz, NULL),
        ("synced_at", Timestamptz, NULL),
    ):
        manager.add_column(
            table_class_name="IncomingEmail",
            tablename="incoming_emails",
            column_name=name,
            column_class=column_class,
            params=params,
        )
    return manager
