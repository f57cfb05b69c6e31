"""The database refuses to remove the last administrator.

Where the tables are not there yet, this is made after the migrations of the apps that bring them.
"""

from app.database.online_migration import OnlineMigration
from app.database.session_guard import guard_admins, leave_admins

ID = "2026-11-26T11:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "trigger mailroom_keep_an_admin"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_raw(guard_admins)
    manager.add_raw_backwards(leave_admins)
    return manager
