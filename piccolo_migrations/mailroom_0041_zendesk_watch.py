"""How far Zendesk's own records have been looked through, which of its calls did not reach us, and
answers of shapes that nobody has seen. New tables: no email waits for them.
"""

from piccolo.columns import UUID, BigInt, BigSerial, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:41:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "zendesk_cursors, zendesk_invocations, zendesk_oddities"

TABLES = {
    "ZendeskCursor": "zendesk_cursors",
    "ZendeskInvocation": "zendesk_invocations",
    "ZendeskOddity": "zendesk_oddities",
}
NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(table: str, name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name=table,
            tablename=TABLES[table],
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    for class_name, tablename in TABLES.items():
        manager.add_table(class_name=class_name, tablename=tablename)

    add("ZendeskCursor", "name", Varchar, length=200, primary_key=True, default="")
    add("ZendeskCursor", "position", Text, **NULL)
    add("ZendeskCursor", "since", Timestamptz, default=TimestamptzNow())
    add("ZendeskCursor", "seen_until", Timestamptz, default=TimestamptzNow())
    add("ZendeskCursor", "looked_at", BigInt, default=0)
    add("ZendeskCursor", "found", BigInt, default=0)
    add("ZendeskCursor", "odd", BigInt, default=0)
    add("ZendeskCursor", "trouble", Text, **NULL)
    add("ZendeskCursor", "ended_at", Timestamptz, **NULL)
    add("ZendeskCursor", "updated_at", Timestamptz, default=TimestamptzNow())

    add("ZendeskInvocation", "id", Varchar, length=64, primary_key=True, default="")
    add("ZendeskInvocation", "webhook_id", Varchar, length=64, default="")
    add("ZendeskInvocation", "status", Varchar, length=40, default="")
    add("ZendeskInvocation", "completed_at", Timestamptz, default=TimestamptzNow())
    add("ZendeskInvocation", "outcome", Varchar, length=20, default="waiting")
    add("ZendeskInvocation", "email", UUID, **NULL)
    add("ZendeskInvocation", "listed_at", Timestamptz, default=TimestamptzNow())
    add("ZendeskInvocation", "looked_at", Timestamptz, **NULL)

    add("ZendeskOddity", "id", BigSerial, primary_key=True)
    add("ZendeskOddity", "seen_at", Timestamptz, default=TimestamptzNow())
    add("ZendeskOddity", "kind", Varchar, length=40, default="")
    add("ZendeskOddity", "item", Text, default="")

    manager.build_index(
        "ix_zendesk_invocations_waiting",
        "zendesk_invocations (completed_at, id) WHERE outcome = 'waiting'",
    )
    return manager
