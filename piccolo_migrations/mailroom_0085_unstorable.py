"""One more reason for which webhooks are kept: Mailroom itself, or its database, fails on them.
It is checked by Mailroom and not by the database.

Before going back, retry or discard what is in the quarantine for the reason `unstorable`: an older
Mailroom does not know it.
"""

from enum import Enum

from piccolo.columns import Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-11-27T05:35:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "quarantined_webhooks.reason: unstorable"

BEFORE = {
    "SIGNATURE": "signature",
    "UNREADABLE": "unreadable",
    "INVALID": "invalid",
    "TOO_LARGE": "too_large",
    "MEDIA_TYPE": "media_type",
}
SUSPENDED = {"SUSPENDED": "suspended"}
OldReason = Enum("RefusalReason", BEFORE | SUSPENDED)
Reason = Enum("RefusalReason", BEFORE | {"UNSTORABLE": "unstorable"} | SUSPENDED)


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.alter_column(
        table_class_name="QuarantinedWebhook",
        tablename="quarantined_webhooks",
        column_name="reason",
        db_column_name="reason",
        params={"choices": Reason},
        old_params={"choices": OldReason},
        column_class=Varchar,
        old_column_class=Varchar,
    )
    return manager
