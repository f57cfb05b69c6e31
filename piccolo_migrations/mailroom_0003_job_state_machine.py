"""The job's state machine: when it started and ended, its retries, and the attachments.

It adds columns only; every column that was there stays as it was.
"""

from piccolo.columns import JSON, Integer, Timestamptz

from app.database.online_migration import OnlineMigration

ID = "2026-10-01T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "job state machine: started_at, completed_at, retry_count, attachment_urls"

TABLE = {"table_class_name": "IncomingEmail", "tablename": "incoming_emails"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    for name in ("started_at", "completed_at"):
        manager.add_column(
            **TABLE,
            column_name=name,
            column_class=Timestamptz,
            params={"null": True, "default": None},
        )
    manager.add_column(
        **TABLE, column_name="retry_count", column_class=Integer, params={"default": 0}
    )
    manager.add_column(
        **TABLE,
        column_name="attachment_urls",
        column_class=JSON,
        params={"null": True, "default": None},
    )
    return manager
