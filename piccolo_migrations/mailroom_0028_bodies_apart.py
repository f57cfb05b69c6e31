"""Bodies stand apart from what changes: each change of an email's state writes its row anew, and
what is out of line is not written with it.

It concerns rows that are written from now on. Nothing is rewritten, and nobody who writes waits:
the lock that it takes (SHARE UPDATE EXCLUSIVE) is one that inserts and updates go on beside.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T08:28:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "toast_tuple_target of incoming_emails"

# An email's row without its texts has about as many bytes.
BYTES_IN_LINE = 512


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.set_storage("incoming_emails", toast_tuple_target=BYTES_IN_LINE)
    return manager
