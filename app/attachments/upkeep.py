"""What operators do about the archive: find files, have them fetched again, see whether their bytes
are whole, remove what nobody needs, move all to another store."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.attachments import enrolling, removing, transitions
from app.attachments.store import AttachmentStore, MissingBytesError
from app.audit.log import Database
from app.models.email_attachment import NOT_KEPT, AttachmentState

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

BATCH = 500
# Emails whose files get rows with one statement: each may name a thousand.
ENROLLED_AT_ONCE = 20

# Each state by ix_email_attachments_state; what is pending has not ended and comes first.
FIND = """
SELECT file.* FROM unnest($1::text[]) AS wanted CROSS JOIN LATERAL (
    SELECT id, email, position, filename, state, reason, detail, size, sha256, tries, ended_at
    FROM email_attachments
    WHERE state = wanted AND ($2::timestamptz IS NULL OR ended_at >= $2)
    ORDER BY ended_at DESC LIMIT $3
) AS file
ORDER BY ended_at DESC NULLS FIRST, email, position
LIMIT $3
"""
FIND_OF_EMAIL = """
SELECT id, email, position, filename, state, reason, detail, size, sha256, tries, ended_at
FROM email_attachments WHERE email = $1 AND ($2::int IS NULL OR position = $2)
ORDER BY position
"""
FAILED_SINCE = """
SELECT id FROM email_attachments WHERE state = 'failed' AND ended_at >= $1
ORDER BY ended_at LIMIT $2
"""
# Emails that came before there was an archive, or while it was off.
RECEIVED_SINCE = """
SELECT id, received_at FROM incoming_emails
WHERE (received_at, id) > ($1, $2) AND attachment_urls IS NOT NULL AND erased_at IS NULL
ORDER BY received_at, id LIMIT $3
"""
KEPT_AFTER = """
SELECT sha256, max(size) AS size FROM email_attachments
WHERE sha256 > $1 AND state = 'kept' GROUP BY sha256 ORDER BY sha256 LIMIT $2
"""
FILES_OF_CONTENT = """
SELECT id, email, position FROM email_attachments WHERE sha256 = $1 AND state = 'kept'
ORDER BY email, position
"""
# Of an email that was deleted past this program.
ORPHANS = f"""
WITH {removing.erasing("NOT EXISTS (SELECT FROM incoming_emails AS i WHERE i.id = file.email)")}
SELECT count(*) FROM files_gone
"""  # noqa: S608 - a constant


@attrs.frozen
class File:
    """One file, for a list."""

    id: UUID
    email: UUID
    position: int
    filename: str | None
    state: str
    reason: str | None
    detail: str | None
    size: int | None
    sha256: str | None
    tries: int
    ended_at: datetime | None

    @property
    def name(self) -> str:
        """How operators name it."""
        return f"{self.email}/{self.position}"


class Damage(StrEnum):
    """What is wrong with the bytes of a content."""

    MISSING = "missing"
    CHANGED = "changed"


@attrs.frozen
class Damaged:
    """A content that is not as it was kept, and the files that have it."""

    sha256: str
    damage: Damage
    file_ids: list[UUID]
    names: list[str]


@attrs.define
class Tally:
    """What was looked at."""

    contents: int = 0
    size: int = 0
    """Bytes."""
    copied: int = 0


async def find(
    pool: Pool, states: Collection[AttachmentState], *, since: datetime | None, limit: int
) -> list[File]:
    """Files in these states, those that ended last first; of those that ended since a moment."""
    rows = await pool.fetch(FIND, list(states), since, limit)
    return [File(**row) for row in rows]


async def find_of_email(pool: Database, email_id: UUID, position: int | None = None) -> list[File]:
    """The files of an email, or one of them."""
    return [File(**row) for row in await pool.fetch(FIND_OF_EMAIL, email_id, position)]


async def find_damaged(
    pool: Pool, email_id: UUID, position: int, *, open_store: Callable[[], AttachmentStore]
) -> list[Damaged]:
    """One file of an email, if it is kept and its bytes are not whole: those that are may not be
    had again where they came from.

    It reads all of it, which takes as long as the store does: no lock may be held meanwhile.

    Args:
        open_store: is called where there is something to be read.

    Raises:
        StoreError: it cannot be seen.
    """
    damaged = []
    for file in await pool.fetch(FIND_OF_EMAIL, email_id, position):
        sha256 = file["sha256"]
        if file["state"] == AttachmentState.KEPT and sha256:
            found = await open_store().digest(sha256)
            if found != sha256:
                damaged.append(_damaged(sha256, found, [file]))
    return damaged


async def fetch_again(
    pool: Database,
    email_id: UUID,
    position: int | None = None,
    *,
    damaged: Sequence[Damaged] = (),
    most: int,
) -> int:
    """Have the files of an email fetched that are not kept, or one of them; and what was found
    damaged.

    Args:
        damaged: what `find_damaged` found before.
        most: files of one email that are fetched, where none has a row yet.

    Returns:
        How many are fetched now.
    """
    made = await enrolling.enrol(pool, [email_id], most=most)
    files = await find_of_email(pool, email_id, position)
    again = await transitions.refetch(pool, [file.id for file in files], states=NOT_KEPT)
    if position is None:
        return len(again) + made
    return len(again) + await refetch_damaged(pool, damaged)


async def fetch_failed_since(pool: Pool, since: datetime) -> int:
    """Have all fetched again that failed since a moment. Returns how many."""
    count = 0
    # What is fetched again has failed no longer, so the next look finds the next ones; what cannot
    # be is found again and again.
    while rows := await pool.fetch(FAILED_SINCE, since, BATCH):
        again = await transitions.refetch(
            pool, [row["id"] for row in rows], states=[AttachmentState.FAILED]
        )
        count += len(again)
        if not again:
            break
    return count


async def fetch_since(pool: Pool, since: datetime, *, most: int) -> int:
    """Have the files fetched of all emails that were received since a moment, and have no rows yet.

    Returns:
        How many files that is.
    """
    count, after = 0, (since, UUID(int=0))
    while rows := await pool.fetch(RECEIVED_SINCE, *after, ENROLLED_AT_ONCE):
        count += await enrolling.enrol(pool, [row["id"] for row in rows], most=most)
        after = (rows[-1]["received_at"], rows[-1]["id"])
    return count


async def verify(pool: Pool, store: AttachmentStore, tally: Tally) -> AsyncIterator[Damaged]:
    """Read all that is kept, and tell what is missing or changed.

    Raises:
        StoreError: the store is away.
    """
    async for sha256, size in _kept(pool):
        tally.contents += 1
        tally.size += size
        found = await store.digest(sha256)
        if found != sha256:
            files = await pool.fetch(FILES_OF_CONTENT, sha256)
            if not files:
                # Erased since it was looked for.
                continue
            yield _damaged(sha256, found, files)


async def refetch_damaged(pool: Database, damaged: Sequence[Damaged]) -> int:
    """Have the files fetched again whose bytes are not as they were kept. Returns how many."""
    return await transitions.refetch_damaged(
        pool, [(file_id, one.sha256) for one in damaged for file_id in one.file_ids]
    )


async def move(
    pool: Pool, source: AttachmentStore, target: AttachmentStore, folder: Path, tally: Tally
) -> AsyncIterator[Damaged]:
    """Copy all that is kept to another store; what is there already is not copied again, so it can
    be begun anew where it was ended. Tells what the source has not, or has changed.

    Args:
        folder: for one content at a time.

    Raises:
        StoreError: one of the stores is away.
    """
    async for sha256, size in _kept(pool):
        tally.contents += 1
        tally.size += size
        if await target.size(sha256) == size:
            continue
        path = folder / "moved"
        try:
            found = await _copy(source, sha256, path)
        except MissingBytesError:
            found = None
        if found == sha256:
            await target.put(path, sha256)
            tally.copied += 1
            continue
        files = await pool.fetch(FILES_OF_CONTENT, sha256)
        if files:
            yield _damaged(sha256, found, files)


async def remove_orphans(pool: Pool) -> int:
    """Remove the rows of emails that are not there any longer. Returns how many."""
    count: int = await pool.fetchval(ORPHANS)
    return count


def _damaged(sha256: str, found: str | None, files: Sequence[asyncpg.Record]) -> Damaged:
    return Damaged(
        sha256,
        Damage.MISSING if found is None else Damage.CHANGED,
        [file["id"] for file in files],
        [f"{file['email']}/{file['position']}" for file in files],
    )


async def _kept(pool: Pool) -> AsyncIterator[tuple[str, int]]:
    """All contents that an email has, in the order of their hashes, and their bytes."""
    after = ""
    while rows := await pool.fetch(KEPT_AFTER, after, BATCH):
        for row in rows:
            yield row["sha256"], row["size"]
        after = rows[-1]["sha256"]


async def _copy(source: AttachmentStore, sha256: str, path: Path) -> str:
    """Returns the SHA-256 of what came."""
    sha = hashlib.sha256()
    with path.open("wb") as file:
        async with aclosing(source.read(sha256)) as pieces:
            async for piece in pieces:
                sha.update(piece)
                await asyncio.to_thread(file.write, piece)
    return sha.hexdigest()
