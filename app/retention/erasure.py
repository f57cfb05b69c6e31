"""Erasures that a person or a program asks for: by sender, by ticket, or of one email.

Each is a row from its beginning, and is worked off in batches, each of which leaves all in order:
whoever was killed is followed by the chore, or by who asks again. By how many it is worked off at
once makes no difference. What `app.jobs.transitions.erasing` removes is the same for all.
"""

import time
from datetime import timedelta
from uuid import UUID

import structlog

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import in_transaction, write
from app.jobs.chores import ChoreContext
from app.jobs.transitions import erasing
from app.jobs.transitions.erasing import Erased
from app.models.audit_entry import Result
from app.models.erasure import ErasedBy
from app.retention import elsewhere
from app.retention import erasure_records as records
from app.retention.criteria import (
    Criterion,
    Pool,
    find_emails,
    find_refused,
    find_unreadable,
)
from app.retention.erasure_records import Record
from app.telemetry.metrics import ERASURE_FAILURES

log = structlog.get_logger(__name__)

BATCH = 200
# Whoever works one off says so with each batch; a process that was silent for longer has vanished.
SILENCE = timedelta(minutes=2)
FINISH_EVERY_SECONDS = 15.0
MOST_COUNTED = 1_000_000

COUNT_BELONGINGS = """
SELECT
    (SELECT count(*) FROM email_attachments WHERE email = ANY($1::uuid[])) AS files,
    (SELECT count(*) FROM email_events WHERE email = ANY($1::uuid[])) AS entries,
    (SELECT count(*) FROM incoming_emails
        WHERE id = ANY($1::uuid[]) AND sync_status = 'pending') AS deliveries
"""
# Whoever sent it wrote the header: what is no signature could be the key of somebody's email.
MARK_REFUSED = """
INSERT INTO tombstones (key, email, erasure)
SELECT DISTINCT ON (key) key, refused.id, $2 FROM quarantined_webhooks AS refused
CROSS JOIN LATERAL unnest(
    ARRAY[headers ->> 'x-zendesk-webhook-signature', 'quarantine:' || id]
) AS key
WHERE id = ANY($1::uuid[]) AND (key ~ '^[A-Za-z0-9+/]{43}=$' OR key = 'quarantine:' || id)
ORDER BY key
ON CONFLICT (key) DO NOTHING
"""
DELETE_REFUSED = "DELETE FROM quarantined_webhooks WHERE id = ANY($1::uuid[])"
DELETE_WAITING = "DELETE FROM waiting_attachments WHERE ticket_id = $1"


async def survey(pool: Pool, criterion: Criterion) -> Erased:
    """What an erasure would remove now; of a million emails at most. Files that wait for their
    email are not counted."""
    ids = await find_emails(pool, criterion, MOST_COUNTED)
    ids += await find_unreadable(pool, criterion, MOST_COUNTED)
    belongings = await pool.fetchrow(COUNT_BELONGINGS, ids)
    refused = len(await find_refused(pool, criterion)) + await elsewhere.count(pool, criterion)
    return Erased(emails=len(ids), refused=refused, **dict(belongings or {}))


async def erase(pool: Pool, criterion: Criterion, *, by: str, actor: Actor) -> Record:
    """Ask for an erasure, and work it off.

    Raises:
        StillWritingError: it has to wait for a session that does not end.
    """
    erasure_id = await begin(pool, criterion, by=by, actor=actor)
    await work_off(pool, erasure_id, criterion)
    record = await records.read(pool, erasure_id)
    if record is None:
        raise LookupError("records are never deleted")
    return record


async def begin(pool: Pool, criterion: Criterion, *, by: str, actor: Actor | None = None) -> UUID:
    """Ask for an erasure. Returns its id; from now on it is worked off, by whomever.

    Args:
        by: how its record names who asks.
        actor: the same for the audit log; None: no person or program asks.
    """
    async with in_transaction(pool) as connection:
        erasure_id = await records.begin(connection, criterion, by=by)
        if actor is not None:
            is_one = criterion.kind is ErasedBy.EMAIL
            await write(
                connection,
                actor,
                Act.EMAIL_ERASE if is_one else Act.ERASURE,
                [criterion.value if is_one else erasure_id],
                result=Result.BEGUN,
                details={"by": criterion.kind.value, "erasure": str(erasure_id)},
            )
    log.info("erasure_asked_for", erasure_id=str(erasure_id), kind=criterion.kind.value, by=by)
    return erasure_id


async def work_off(
    pool: Pool, erasure_id: UUID, criterion: Criterion, *, seconds: float | None = None
) -> bool:
    """Erase batch by batch.

    Args:
        seconds: begin no batch after so long, and leave the rest to a worker.

    Returns:
        Whether nothing is left.

    Raises:
        StillWritingError: it has to wait for a session that does not end.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    # Before the quarantine: whoever keeps a suspended mail there holds its row meanwhile.
    await _erase_elsewhere(pool, erasure_id, criterion)
    await _erase_refused(pool, erasure_id, criterion)
    while ids := (
        await find_emails(pool, criterion, BATCH) or await find_unreadable(pool, criterion, BATCH)
    ):
        if deadline is not None and time.monotonic() > deadline:
            await records.leave(pool, erasure_id)
            return False
        await _erase_emails(pool, erasure_id, ids)
    if criterion.kind is ErasedBy.TICKET:
        async with pool.acquire() as connection, connection.transaction():
            gone = _count(await connection.execute(DELETE_WAITING, criterion.value))
            await records.add(connection, erasure_id, Erased(waiting_files=gone))
    await records.end(pool, erasure_id)
    log.info("erasure_ended", erasure_id=str(erasure_id))
    return True


async def erase_email(pool: Pool, email_id: UUID, *, by: str, actor: Actor | None = None) -> bool:
    """Erase one email, whatever its state.

    Returns:
        Whether it was there.
    """
    criterion = Criterion.email(email_id)
    if not await find_emails(pool, criterion, 1):
        return False
    await work_off(pool, await begin(pool, criterion, by=by, actor=actor), criterion)
    return True


async def finish_left(pool: Pool) -> int:
    """Work off what others began and left; one that fails holds up no other, and is tried again
    after a while. Returns how many came to their ends.

    Raises:
        Exception: the database is away.
    """
    finished = 0
    for erasure_id, criterion in await records.find_left(pool, SILENCE):
        try:
            await work_off(pool, erasure_id, criterion)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            kind = type(error).__name__
            # A row that is locked and forgotten looks as a database that is away, to which this
            # cannot be said.
            await records.fail(pool, erasure_id, kind)
            log.error("erasure_failed", erasure_id=str(erasure_id), error=kind)
            ERASURE_FAILURES.inc()
        else:
            finished += 1
    return finished


async def finish(context: ChoreContext) -> str | None:
    """The chore: `finish_left`."""
    finished = await finish_left(context.pool)
    return f"{finished} erasures were brought to their ends" if finished else None


async def _erase_emails(pool: Pool, erasure_id: UUID, ids: list[UUID]) -> None:
    await erasing.mark(pool, ids, erasure_id)
    await erasing.settle_writers(pool)
    async with pool.acquire() as connection, connection.transaction():
        erased = await erasing.remove(connection, ids, erasure_id)
        if erased is not None:
            await records.add(connection, erasure_id, erased)


async def _erase_elsewhere(pool: Pool, erasure_id: UUID, criterion: Criterion) -> None:
    """Remove what is known besides; the copies of suspended mail are admitted as refused webhooks
    are, and have tombstones before."""
    settled: set[UUID] = set()
    while True:
        async with pool.acquire() as connection, connection.transaction():
            copies = await elsewhere.hold_copies(connection, criterion)
            if copies <= settled:
                gone = await elsewhere.erase(connection, criterion)
                await records.add(connection, erasure_id, Erased(refused=gone))
                return
            await connection.execute(MARK_REFUSED, [*copies], erasure_id)
        await erasing.settle_writers(pool)
        settled |= copies


async def _erase_refused(pool: Pool, erasure_id: UUID, criterion: Criterion) -> None:
    """Remove webhooks from the quarantine. Who admits one at the same moment meets its tombstone,
    or makes an email of it before those are looked for."""
    ids = await find_refused(pool, criterion)
    if not ids:
        return
    await pool.execute(MARK_REFUSED, ids, erasure_id)
    await erasing.settle_writers(pool)
    async with pool.acquire() as connection, connection.transaction():
        gone = _count(await connection.execute(DELETE_REFUSED, ids))
        await records.add(connection, erasure_id, Erased(refused=gone))


def _count(tag: str) -> int:
    return int(tag.removeprefix("DELETE "))
