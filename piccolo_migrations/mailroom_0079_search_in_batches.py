"""The index of words: a short pending list, since what a batch writes costs a third so; and a mark
that is exact where many emails were stored in one moment.
"""

from piccolo.columns import UUID

from app.database.engine import DB
from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:19:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "search_marks.older_id, pending list of ix_search_entries_words"

# In KB: what a search reads at most besides.
COLLECT = "ALTER INDEX ix_search_entries_words SET (fastupdate = on, gin_pending_list_limit = 128)"
TAKE_BACK = (
    "ALTER INDEX ix_search_entries_words SET (fastupdate = off)",
    "ALTER INDEX ix_search_entries_words RESET (gin_pending_list_limit)",
)


async def collect() -> None:
    await DB.run_ddl(COLLECT)


async def take_back() -> None:
    for statement in TAKE_BACK:
        await DB.run_ddl(statement)


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_column(
        table_class_name="SearchMark",
        tablename="search_marks",
        column_name="older_id",
        column_class=UUID,
        params={"null": True, "default": None},
    )
    manager.waits_for("search_entries")
    manager.add_raw(collect)
    manager.add_raw_backwards(take_back)
    return manager
