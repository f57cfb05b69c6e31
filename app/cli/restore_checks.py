"""What `mailroom doctor --after-restore` checks of a database that was put back to an earlier
moment, and what is to be done then; docs/backup.md tells it in order."""

import asyncio
from datetime import datetime
from typing import Any

import asyncpg

from app.attachments.store import AttachmentStore
from app.cli.zendesk_checks import NotWellError
from app.database.engine import DB
from app.models.fit import in_utc
from app.settings import Settings
from app.zendesk.ticket_line import TICKETS

# Of the files that were kept last: those before them were in the store when it was saved.
LOOKED_FOR = 200
# A bucket takes its time to answer, some 100 ms, and bears many questions beside each other.
ASKED_AT_ONCE = 20

# By the index on status and time of receipt; one look for each status.
NEWEST = """
SELECT max(newest.received_at) FROM unnest(
    ARRAY['received', 'queued', 'processing', 'completed', 'failed']
) AS status CROSS JOIN LATERAL (
    SELECT received_at FROM incoming_emails WHERE processing_status = status
    ORDER BY received_at DESC LIMIT 1
) AS newest
"""
AT_WORK = """
SELECT string_agg(
    DISTINCT application_name || ' from ' || coalesce(host(client_addr), 'here'), ', '
)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name LIKE 'mailroom%'
"""
SEQUENCES = """
SELECT s.seqrelid::regclass::text AS sequence, d.refobjid::regclass::text AS owner,
    quote_ident(a.attname) AS field, coalesce(pg_sequence_last_value(s.seqrelid), 0) AS last
FROM pg_sequence AS s
JOIN pg_depend AS d ON d.objid = s.seqrelid AND d.classid = 'pg_class'::regclass
    AND d.refobjsubid > 0
JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
ORDER BY 1
"""
KEPT_LAST = """
SELECT DISTINCT sha256 FROM (
    SELECT sha256 FROM email_attachments WHERE state = 'kept' ORDER BY ended_at DESC LIMIT $1
) AS kept
"""
CURSOR = f"SELECT seen_until FROM zendesk_cursors WHERE name = '{TICKETS}'"  # noqa: S608
IN_WORK = """
SELECT count(*) FILTER (WHERE processing_status = 'processing') AS in_work,
    count(*) FILTER (WHERE sync_status = 'pending') AS pending
FROM incoming_emails WHERE processing_status = 'processing' OR sync_status = 'pending'
"""
LAST_ERASURE = "SELECT max(ended_at) FROM erasures"


async def stopped_check(settings: Settings) -> str:
    """Whether nobody works on the database while it is looked at.

    Raises:
        NotWellError: somebody does.
    """
    if at_work := await _ask(AT_WORK):
        raise NotWellError(
            f"Mailroom is at work on this database ({at_work}): stop web processes and workers "
            "until the other findings are seen to"
        )
    return "no process of Mailroom is connected"


async def sequences_check(settings: Settings) -> str:
    """Whether numbers that are given next are free.

    Raises:
        NotWellError: a sequence is behind its table.
    """
    behind = []
    connection = await DB.get_new_connection()
    try:
        rows = await connection.fetch(SEQUENCES)
        for row in rows:
            # Names of the catalog, quoted by it.
            most = await connection.fetchval(f"SELECT max({row['field']}) FROM {row['owner']}")  # noqa: S608
            if most is not None and most > row["last"]:
                behind.append(f"SELECT setval('{row['sequence']}', {most})")
    finally:
        await connection.close()
    if behind:
        raise NotWellError(f"sequences are behind their tables: run {'; '.join(behind)}")
    return f"{len(rows)} sequences are ahead of their tables"


async def moment_check(settings: Settings) -> str:
    """Whether what came since will be found.

    Raises:
        NotWellError: Zendesk cannot be asked.
    """
    newest: datetime | None = await _ask(NEWEST)
    until = "there are no emails" if newest is None else f"the newest email is of {_tell(newest)}"
    if not settings.zendesk_token:
        raise NotWellError(
            f"{until}, and nobody can ask Zendesk for those after it: set MAILROOM_ZENDESK_TOKEN "
            "and run `mailroom backfill --since` with that time, or send them again by hand"
        )
    seen_until: datetime | None = await _ask(CURSOR)
    if seen_until is None:
        since = "TIME" if newest is None else _tell(newest)
        raise NotWellError(
            f"{until}, and Zendesk's tickets were never looked through until then, so the workers "
            f"would begin with today: run `mailroom backfill --since {since}`"
        )
    return f"{until}; tickets are looked through again from {_tell(seen_until)}: `mailroom gaps`"


async def contents_check(settings: Settings) -> str:
    """Whether the store has what the database says of it, of the files kept last.

    Raises:
        NotWellError: some are missing.
    """
    await DB.ensure_running()
    store = AttachmentStore.from_url(settings.attachment_store_url)
    connection = await DB.get_new_connection()
    try:
        rows = await connection.fetch(KEPT_LAST, LOOKED_FOR)
    finally:
        await connection.close()
    places = asyncio.Semaphore(ASKED_AT_ONCE)

    async def is_missing(sha256: str) -> bool:
        async with places:
            return await store.size(sha256) is None

    missing = sum(await asyncio.gather(*(is_missing(row["sha256"]) for row in rows)))
    if missing:
        raise NotWellError(
            f"the store lacks {missing} of the {len(rows)} contents kept last: put its backup "
            "back, then run `mailroom attachments verify --fetch`, which has the rest fetched again"
        )
    return f"the store has the {len(rows)} contents kept last; `attachments verify` reads all"


async def erasures_check(settings: Settings) -> str:
    """What was erased since cannot be known here, so it is said."""
    last: datetime | None = await _ask(LAST_ERASURE)
    known = "knows of none" if last is None else f"knows those until {_tell(last)}"
    return (
        f"of erasures the database {known}: bring the later ones by "
        "`mailroom erasures import FILE` before anything is started"
    )


async def again_check(settings: Settings) -> str:
    """What will be done a second time, which nobody can tell from here."""
    connection = await DB.get_new_connection()
    try:
        row = await connection.fetchrow(IN_WORK)
    finally:
        await connection.close()
    said = (
        f"{row['in_work']} emails were in work and {row['pending']} to be delivered" if row else ""
    )
    if not settings.delivers:
        return f"{said}; what was handled since is handled again"
    return (
        f"{said}; what was handled and delivered since is so again, with the same webhook-id. "
        "Emails that come back from Zendesk have new ids, and the same `key` only where the same "
        "call brings them: one found by its ticket (`origin` is backfill) has another"
        + ("; then run `mailroom reconcile`" if settings.sync_check_url else "")
    )


RESTORE_CHECKS = {
    "stopped": stopped_check,
    "erasures": erasures_check,
    "sequences": sequences_check,
    "contents": contents_check,
    "again": again_check,
    "moment": moment_check,
}


def _tell(moment: datetime) -> str:
    return in_utc(moment).isoformat(timespec="seconds")


async def _ask(query: str) -> Any:
    connection: asyncpg.Connection[asyncpg.Record] = await DB.get_new_connection()
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
