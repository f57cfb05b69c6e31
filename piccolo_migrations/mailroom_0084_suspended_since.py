"""When a suspended mail was listed first, so that what is done to all that a preview showed is done
to nothing that came after it. What is there gets the moment of this migration; older processes,
which know nothing of it, write rows that get the moment of their writing.
"""

from piccolo.columns import Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-27T02:02:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "suspended_first_seen_at"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_column(
        table_class_name="SuspendedTicket",
        tablename="suspended_tickets",
        column_name="first_seen_at",
        column_class=Timestamptz,
        params={"default": TimestamptzNow()},
    )
    return manager
