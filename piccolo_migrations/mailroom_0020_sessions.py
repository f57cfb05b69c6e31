"""The operators' sessions are found by an index, and end with the password.

Where the tables are not there yet, this is made after the migrations of the apps that bring them.
"""

from app.database.online_migration import OnlineMigration
from app.database.session_guard import guard_sessions, leave_sessions

ID = "2026-11-25T00:20:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_sessions_token, trigger mailroom_end_sessions"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_raw(guard_sessions)
    manager.add_raw_backwards(leave_sessions)
    return manager
