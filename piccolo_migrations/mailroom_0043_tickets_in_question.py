"""Tickets of which emails were made from comments, so that a late webhook is compared with
them; and the index by which the tombstones of a ticket are found.
"""

from piccolo.columns import Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.indexes import IndexMethod

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:43:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "zendesk_tickets_in_question, index ix_tombstones_arrived"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="ZendeskTicketInQuestion",
            tablename="zendesk_tickets_in_question",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    manager.add_table(class_name="ZendeskTicketInQuestion", tablename="zendesk_tickets_in_question")
    add("ticket_id", Varchar, length=64, primary_key=True, default="")
    add(
        "created_at",
        Timestamptz,
        default=TimestamptzNow(),
        index=True,
        index_method=IndexMethod.btree,
    )
    manager.build_index(
        "ix_tombstones_arrived", "tombstones (key varchar_pattern_ops) WHERE key LIKE 'arrived %'"
    )
    return manager
