"""What Zendesk suspended, and a reason of the quarantine for what is kept of it. A new table: no
email waits for it; the reason is checked by Mailroom and not by the database.

Before going back, discard what is in the quarantine for the reason `suspended`: an older Mailroom
does not know it.
"""

from enum import Enum

from piccolo.columns import UUID, BigInt, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:46:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "suspended_tickets, the reason suspended of quarantined_webhooks"

NULL = {"null": True, "default": None}
REASONS = {
    "SIGNATURE": "signature",
    "UNREADABLE": "unreadable",
    "INVALID": "invalid",
    "TOO_LARGE": "too_large",
    "MEDIA_TYPE": "media_type",
}
OldReason = Enum("RefusalReason", REASONS)
Reason = Enum("RefusalReason", REASONS | {"SUSPENDED": "suspended"})


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="SuspendedTicket",
            tablename="suspended_tickets",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="SuspendedTicket", tablename="suspended_tickets")
    add("id", BigInt, primary_key=True, default=0)
    add("cause", Varchar, length=60, default="")
    add("cause_text", Text, default="")
    add("sender", Text, default="")
    add("sender_name", Text, **NULL)
    add("subject", Text, default="")
    add("ticket_id", BigInt, **NULL)
    add("suspended_at", Timestamptz, default=TimestamptzNow())
    add("seen_at", Timestamptz, default=TimestamptzNow())
    add("archived_at", Timestamptz, **NULL)
    add("archived_as", UUID, **NULL)
    add("recover_asked_at", Timestamptz, **NULL)
    add("recover_tries", Integer, default=0)
    add("erased_at", Timestamptz, **NULL)
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
