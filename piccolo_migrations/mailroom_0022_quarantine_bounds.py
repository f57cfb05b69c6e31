"""What the bounds of the quarantine are about: all the bytes of a refused webhook, and whether
Zendesk signed it.

Both columns have a constant default, so no row is written anew.
"""

from piccolo.columns import Boolean, Integer

from app.database.online_migration import OnlineMigration

ID = "2026-11-25T00:22:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "kept_bytes, is_signed of quarantined_webhooks"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    for name, column_class, default in (
        ("kept_bytes", Integer, 0),
        ("is_signed", Boolean, False),
    ):
        manager.add_column(
            table_class_name="QuarantinedWebhook",
            tablename="quarantined_webhooks",
            column_name=name,
            column_class=column_class,
            params={"default": default},
        )
    return manager
