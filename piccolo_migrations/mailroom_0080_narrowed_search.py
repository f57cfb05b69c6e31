"""The indexes by which files that are not kept are found by their names, and deliveries that were
given up by why.

Both hold only those, so nothing that the webhook or a handler writes is in them. Their expressions
are those of `app.search.words`, as they stood when this was written.
"""

from app.database.online_migration import OnlineMigration

ID = "2026-11-27T01:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "indexes ix_email_attachments_names, ix_incoming_emails_sync_error"

PARTED = "to_tsvector('simple', left(translate({}, '._-/:@+,;=&%#', repeat(' ', 13)), 2000))"
HUMPS = r"(sync_error || ' ' || regexp_replace(sync_error, '([a-z])([A-Z])', '\1 \2', 'g'))"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.build_index(
        "ix_email_attachments_names",
        f"email_attachments USING gin ({PARTED.format('filename')})"
        " WHERE state IN ('skipped', 'failed', 'flagged')",
    )
    manager.build_index(
        "ix_incoming_emails_sync_error",
        f"incoming_emails USING gin ({PARTED.format(HUMPS)}) WHERE sync_status = 'failed'",
    )
    return manager
