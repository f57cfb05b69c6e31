"""How those stand to whom is delivered, and what is delivered besides the ends of emails. Two new
tables: no email waits for it."""

from enum import Enum

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Check

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:32:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "sync_receivers, sync_events"

BreakerState = Enum("BreakerState", {"CLOSED": "closed", "OPEN": "open", "HALF_OPEN": "half_open"})
SyncStatus = Enum(
    "SyncStatus",
    {
        "PENDING": "pending",
        "SYNCED": "synced",
        "FAILED": "failed",
        "NOT_APPLICABLE": "not_applicable",
    },
)
NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(table: tuple[str, str], name: str, column_class: type, **params: object) -> None:
        class_name, tablename = table
        manager.add_column(
            table_class_name=class_name,
            tablename=tablename,
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    receivers = ("SyncReceiver", "sync_receivers")
    manager.add_table(class_name=receivers[0], tablename=receivers[1])
    add(receivers, "name", Varchar, length=300, primary_key=True, default="")
    add(receivers, "state", Varchar, length=20, default="closed", choices=BreakerState)
    add(receivers, "failures", Integer, default=0)
    add(receivers, "reason", Text, **NULL)
    add(receivers, "opened_at", Timestamptz, **NULL)
    add(receivers, "probes", Integer, default=0)
    add(receivers, "probe_at", Timestamptz, **NULL)
    add(receivers, "probe_token", UUID, **NULL)
    add(receivers, "rests_until", Timestamptz, **NULL)
    add(receivers, "paused_at", Timestamptz, **NULL)
    add(receivers, "pause_reason", Text, **NULL)
    add(receivers, "updated_at", Timestamptz, default=TimestamptzNow())
    manager.add_constraint(
        table_class_name=receivers[0],
        tablename=receivers[1],
        constraint_name="check_breaker_state",
        constraint_class=Check,
        params={"condition": "state IN ('closed', 'open', 'half_open')"},
    )

    events = ("SyncEvent", "sync_events")
    manager.add_table(class_name=events[0], tablename=events[1])
    add(events, "id", UUID, primary_key=True, default=UUID4())
    add(events, "kind", Varchar, length=40, default="")
    add(events, "email", UUID, default=None)
    add(events, "sync_version", Integer, default=0)
    add(events, "created_at", Timestamptz, default=TimestamptzNow())
    add(events, "sync_status", Varchar, length=20, default="pending", choices=SyncStatus)
    add(events, "sync_error", Text, **NULL)
    add(events, "sync_retry_count", Integer, default=0)
    add(events, "sync_next_attempt_at", Timestamptz, null=True, default=TimestamptzNow())
    add(events, "sync_token", UUID, **NULL)
    add(events, "sync_lease_expires_at", Timestamptz, **NULL)
    add(events, "synced_at", Timestamptz, **NULL)
    manager.add_constraint(
        table_class_name=events[0],
        tablename=events[1],
        constraint_name="check_event_sync_status",
        constraint_class=Check,
        params={"condition": "sync_status IN ('pending', 'synced', 'failed', 'not_applicable')"},
    )
    # What is due; only what is not delivered yet is in it.
    manager.build_index(
        "ix_sync_events_due",
        "sync_events (sync_next_attempt_at) WHERE (sync_status = 'pending') IS TRUE",
    )
    return manager
