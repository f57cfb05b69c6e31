"""The index by which the erased emails of a ticket are found, under whichever collation.

It holds one tombstone of several, and compares bytes.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:51:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "index ix_tombstones_arrived"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_tombstones_arrived",
        "tombstones (key text_pattern_ops) WHERE key LIKE 'arrived %'",
    )
    return manager
