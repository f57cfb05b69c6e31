"""The index of words: new tables, which no email waits for, and which a chore fills.

Its GIN index has no pending list: whoever searches would have to read that, and nobody waits for
who writes it. The index on deliveries that were given up holds nothing where there are none.
"""

from piccolo.columns import UUID, SmallInt, Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4

from app.database.online_migration import OnlineMigration
from app.models.search import TSVector

ID = "2026-11-26T11:01:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "search_entries, search_marks, index ix_incoming_emails_sync_failed"

ENTRIES = {"table_class_name": "SearchEntry", "tablename": "search_entries"}
MARKS = {"table_class_name": "SearchMark", "tablename": "search_marks"}
NOW = {"default": TimestamptzNow()}
NULL = {"null": True, "default": None}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="SearchEntry", tablename="search_entries")
    for name, column, params in (
        ("email", UUID, {"primary_key": True, "default": UUID4()}),
        ("received_at", Timestamptz, NOW),
        ("ended_at", Timestamptz, NULL),
        ("words", TSVector, {"default": ""}),
    ):
        manager.add_column(**ENTRIES, column_name=name, column_class=column, params=params)
    manager.add_table(class_name="SearchMark", tablename="search_marks")
    for name, column, params in (
        ("id", SmallInt, {"primary_key": True, "default": 1}),
        ("stored_until", Timestamptz, NOW),
        ("ended_until", Timestamptz, NOW),
        ("older_than", Timestamptz, NULL),
    ):
        manager.add_column(**MARKS, column_name=name, column_class=column, params=params)
    manager.build_index(
        "ix_search_entries_words", "search_entries USING gin (words) WITH (fastupdate = off)"
    )
    manager.build_index(
        "ix_incoming_emails_sync_failed",
        "incoming_emails (received_at, id) WHERE sync_status = 'failed'",
    )
    return manager
