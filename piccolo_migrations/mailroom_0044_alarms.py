"""Alarms, and what is told of them. Two new tables: no email waits for it."""

from enum import Enum

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Unique

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:44:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "alarms, alarm_notices"

NULL = {"null": True, "default": None}
AlarmKind = Enum(
    "AlarmKind", {"SILENCE": "silence", "SUSPENDED": "suspended", "ZENDESK": "zendesk"}
)
AlarmMoment = Enum("AlarmMoment", {"BEGAN": "began", "ENDED": "ended"})
NoticeState = Enum("NoticeState", {"PENDING": "pending", "TOLD": "told", "DROPPED": "dropped"})


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="Alarm",
            tablename="alarms",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    def add_to_notices(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="AlarmNotice",
            tablename="alarm_notices",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="Alarm", tablename="alarms")
    add("id", UUID, primary_key=True, default=UUID4())
    add("kind", Varchar, length=40, default="", choices=AlarmKind)
    add("key", Varchar, length=200, default="")
    add("text", Text, default="")
    add("mend", Text, default="")
    add("since", Timestamptz, default=TimestamptzNow())
    add("last_seen_at", Timestamptz, default=TimestamptzNow())
    add("ended_at", Timestamptz, **NULL)
    add("closed_at", Timestamptz, **NULL)
    # Whoever finds the same thing wrong finds the same alarm.
    manager.build_index("ix_alarms_open", "alarms (kind, key) WHERE closed_at IS NULL", unique=True)

    manager.add_table(class_name="AlarmNotice", tablename="alarm_notices")
    add_to_notices("id", UUID, primary_key=True, default=UUID4())
    add_to_notices("alarm", UUID, default=None)
    add_to_notices("moment", Varchar, length=10, default="", choices=AlarmMoment)
    add_to_notices("target", Varchar, length=64, default="")
    add_to_notices("state", Varchar, length=10, default="pending", choices=NoticeState)
    add_to_notices("token", UUID, **NULL)
    add_to_notices("tries", Integer, default=0)
    add_to_notices("next_attempt_at", Timestamptz, default=TimestamptzNow())
    add_to_notices("error", Text, **NULL)
    add_to_notices("told_at", Timestamptz, **NULL)
    # Nobody is told the same thing twice.
    manager.add_constraint(
        table_class_name="AlarmNotice",
        tablename="alarm_notices",
        constraint_name="unique_notice",
        constraint_class=Unique,
        params={"columns": ["alarm", "moment", "target"], "nulls_distinct": True},
    )
    return manager
