"""What event subscriptions and mended webhooks need: whose comment an email is, when it was erased,
the bytes that a person mended, files that came before their email, and what Zendesk erased.

The columns are null in the rows that are there, so none is written anew.
"""

from piccolo.columns import JSON, Boolean, Bytea, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.indexes import IndexMethod

from app.database.online_migration import OnlineMigration

ID = "2026-11-25T00:23:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "event columns of incoming_emails, waiting_attachments, zendesk_erasures"

INDEX = {"index": True, "index_method": IndexMethod.btree}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(table: str, name: str, column_class: type, **params: object) -> None:
        tablename = {
            "IncomingEmail": "incoming_emails",
            "WaitingAttachment": "waiting_attachments",
            "ZendeskErasure": "zendesk_erasures",
        }[table]
        manager.add_column(
            table_class_name=table,
            tablename=tablename,
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    add("IncomingEmail", "original_body", Bytea, null=True, default=None, secret=True)
    add("IncomingEmail", "zendesk_account_id", Varchar, length=64, null=True, default=None)
    add("IncomingEmail", "zendesk_comment_id", Varchar, length=64, null=True, default=None)
    add("IncomingEmail", "erased_at", Timestamptz, null=True, default=None)

    manager.add_table(class_name="WaitingAttachment", tablename="waiting_attachments")
    add("WaitingAttachment", "event_key", Varchar, length=64, primary_key=True, default="")
    add("WaitingAttachment", "account_id", Varchar, length=64, default="")
    add("WaitingAttachment", "ticket_id", Varchar, length=64, default="", **INDEX)
    add("WaitingAttachment", "comment_id", Varchar, length=64, default="")
    add("WaitingAttachment", "is_of_opening", Boolean, default=False)
    add("WaitingAttachment", "attachment", JSON, default="{}")
    add("WaitingAttachment", "created_at", Timestamptz, default=TimestamptzNow(), **INDEX)

    manager.add_table(class_name="ZendeskErasure", tablename="zendesk_erasures")
    add("ZendeskErasure", "event_key", Varchar, length=64, primary_key=True, default="")
    add("ZendeskErasure", "kind", Varchar, length=20, default="")
    add("ZendeskErasure", "account_id", Varchar, length=64, default="")
    add("ZendeskErasure", "ticket_id", Varchar, length=64, default="", **INDEX)
    add("ZendeskErasure", "comment_id", Varchar, length=64, null=True, default=None)
    add("ZendeskErasure", "attachment_id", Varchar, length=64, null=True, default=None)
    add("ZendeskErasure", "happened_at", Timestamptz, default=TimestamptzNow())
    add("ZendeskErasure", "created_at", Timestamptz, default=TimestamptzNow(), **INDEX)
    return manager
