"""The canary on its way, and how the last ones fared. A new table: no email waits for it."""

from enum import Enum

from piccolo.columns import UUID, BigInt, DoublePrecision, Integer, Text, Timestamptz, Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:53:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "canaries"

KINDS = {"SILENCE": "silence", "SUSPENDED": "suspended", "ZENDESK": "zendesk"}
OldKind = Enum("AlarmKind", KINDS)
Kind = Enum("AlarmKind", {**KINDS, "CANARY": "canary"})
NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="Canary", tablename="canaries")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="Canary",
            tablename="canaries",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    add("id", Integer, primary_key=True, default=1)
    add("token", UUID, **NULL)
    for moment in ("sent_at", "accepted_at", "queued_at", "claimed_at", "completed_at"):
        add(moment, Timestamptz, **NULL)
    add("failures", Integer, default=0)
    add("trouble", Text, **NULL)
    add("completed_total", BigInt, default=0)
    add("failed_total", BigInt, default=0)
    add("last_completed_at", Timestamptz, **NULL)
    for seconds in ("accept_seconds", "claim_seconds", "complete_seconds"):
        add(seconds, DoublePrecision, **NULL)
    manager.alter_column(
        table_class_name="Alarm",
        tablename="alarms",
        column_name="kind",
        db_column_name="kind",
        params={"choices": Kind},
        old_params={"choices": OldKind},
        column_class=Varchar,
        old_column_class=Varchar,
    )
    return manager
