"""What retention has done: when an email's texts were removed, and how far each look came.

The column has a constant default, so no row is written anew.
"""

from piccolo.columns import Timestamptz, Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:37:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "bodies_removed_at of incoming_emails, retention_marks"

MARKS = {"table_class_name": "RetentionMark", "tablename": "retention_marks"}
NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_column(
        table_class_name="IncomingEmail",
        tablename="incoming_emails",
        column_name="bodies_removed_at",
        column_class=Timestamptz,
        params=NULL,
    )
    manager.add_table(class_name="RetentionMark", tablename="retention_marks")
    manager.add_column(
        **MARKS,
        column_name="name",
        column_class=Varchar,
        params={"length": 50, "primary_key": True, "default": ""},
    )
    for name in ("done_until", "looked_at_all_at"):
        manager.add_column(**MARKS, column_name=name, column_class=Timestamptz, params=NULL)
    return manager
