"""The whole payload, replay protection, and what makes a claim recoverable."""

from piccolo.columns import JSON, JSONB, Integer, Timestamptz, Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-11-01T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "raw_payload, delivery_signature, queued_at, claims, leases, attempt_errors"

TABLE = {"table_class_name": "IncomingEmail", "tablename": "incoming_emails"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("raw_payload", JSON, null=True, default=None)
    add("delivery_signature", Varchar, length=64, null=True, default=None, unique=True)
    add("queued_at", Timestamptz, null=True, default=None)
    add("claims", Integer, default=0)
    add("next_attempt_at", Timestamptz, null=True, default=None)
    add("lease_expires_at", Timestamptz, null=True, default=None)
    add("attempt_errors", JSONB, default="[]")
    return manager
