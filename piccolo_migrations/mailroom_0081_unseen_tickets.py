"""Tickets whose comments could not be seen. A new table: no email waits for it, and older processes
know nothing of it.
"""

from piccolo.columns import Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.indexes import IndexMethod

from app.database.online_migration import OnlineMigration

ID = "2026-11-27T01:20:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "zendesk_unseen_tickets"

TABLE = {"table_class_name": "ZendeskUnseenTicket", "tablename": "zendesk_unseen_tickets"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="ZendeskUnseenTicket", tablename="zendesk_unseen_tickets")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("ticket_id", Varchar, length=64, primary_key=True, default="")
    add("unseen_since", Timestamptz, default=TimestamptzNow())
    add(
        "ask_at",
        Timestamptz,
        null=True,
        default=None,
        index=True,
        index_method=IndexMethod.btree,
    )
    add("rounds_away", Integer, default=0)
    add("noted_at", Timestamptz, default=TimestamptzNow())
    return manager
