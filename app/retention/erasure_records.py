"""The records of erasures: what was asked for and by whom, how far it is, how much is gone. What it
was about is kept until it has ended, and then as a hash that takes time to guess."""

import asyncio
import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.jobs.transitions.common import Database
from app.jobs.transitions.erasing import Erased
from app.models.erasure import ErasedBy
from app.retention.criteria import Criterion

# About 40 ms and 16 MB a guess, and each record has a salt of its own: addresses are few enough
# that a plain hash would be guessed. https://www.rfc-editor.org/rfc/rfc7914#section-2
SCRYPT_COST = 2**14
BLOCK_SIZE = 8

BEGIN = """
INSERT INTO erasures (kind, criterion, criterion_hash, asked_by) VALUES ($1, $2, $3, $4)
RETURNING id
"""
# Its emails are known by their ids, so there is nothing that could be guessed.
BEGIN_OF_BULK = """
INSERT INTO erasures (id, kind, criterion_hash, asked_by) VALUES ($1, 'bulk', '', $2)
ON CONFLICT (id) DO NOTHING
"""
ADD = """
UPDATE erasures
SET emails = emails + $2, files = files + $3, entries = entries + $4,
    deliveries = deliveries + $5, refused = refused + $6, waiting_files = waiting_files + $7,
    worked_at = now()
WHERE id = $1
"""
END = """
UPDATE erasures SET ended_at = now(), worked_at = now(), criterion = NULL
WHERE id = $1 AND ended_at IS NULL
"""
FAIL = """
UPDATE erasures SET failures = failures + 1, last_error = $2, worked_at = now()
WHERE id = $1 AND ended_at IS NULL
"""
LEAVE = "UPDATE erasures SET worked_at = '-infinity' WHERE id = $1 AND ended_at IS NULL"
UNFINISHED = """
SELECT id, kind, criterion FROM erasures
WHERE ended_at IS NULL AND kind <> 'bulk' AND worked_at < now() - $1::interval ORDER BY asked_at
"""
COLUMNS = """id, kind, criterion_hash, asked_by, asked_at, ended_at, failures, last_error,
    emails, files, entries, deliveries, refused, waiting_files"""
READ = f"SELECT {COLUMNS} FROM erasures WHERE id = $1"  # noqa: S608 - a constant
LIST = f"SELECT {COLUMNS} FROM erasures ORDER BY asked_at DESC, id LIMIT $1"  # noqa: S608
OF_EMAIL = "SELECT erasure FROM tombstones WHERE key = 'email ' || $1::uuid"


@attrs.frozen
class Record:
    """An erasure that was asked for."""

    id: UUID
    kind: ErasedBy
    criterion_hash: str = attrs.field(repr=False)
    asked_by: str
    asked_at: datetime
    ended_at: datetime | None
    """None: it is being worked off."""
    failures: int
    """How often a worker could not go on with it."""
    last_error: str | None
    """The kind of the last failure."""
    erased: Erased
    """So far."""

    def is_about(self, criterion: Criterion) -> bool:
        """Whether it was asked for by this; takes a while."""
        salt, _, _ = self.criterion_hash.partition("$")
        return (
            self.kind is criterion.kind
            and bool(salt)
            and hmac.compare_digest(self.criterion_hash, hash_criterion(criterion, salt))
        )


async def begin(database: Database, criterion: Criterion, *, by: str) -> UUID:
    """Ask for an erasure. Returns its id."""
    hashed = await asyncio.to_thread(hash_criterion, criterion)
    erasure_id: UUID = await database.fetchval(
        BEGIN, criterion.kind.value, criterion.value, hashed, by
    )
    return erasure_id


async def begin_of_bulk(database: Database, action_id: UUID, *, by: str) -> None:
    """A bulk action erases. Its record has the same id, and is worked off by the action."""
    await database.execute(BEGIN_OF_BULK, action_id, by)


async def add(database: Database, erasure_id: UUID, erased: Erased) -> None:
    """Some more is gone."""
    await database.execute(ADD, erasure_id, *attrs.astuple(erased))


async def end(database: Database, erasure_id: UUID) -> None:
    """Nothing is left, and from now on nothing tells what it was about."""
    await database.execute(END, erasure_id)


async def fail(database: Database, erasure_id: UUID, error: str) -> None:
    """It could not be gone on with, and is tried again after a while.

    Args:
        error: its kind; a text might quote whom it is about.
    """
    await database.execute(FAIL, erasure_id, error)


async def leave(database: Database, erasure_id: UUID) -> None:
    """Somebody else is to go on with it, at once."""
    await database.execute(LEAVE, erasure_id)


async def find_left(database: Database, silent_for: timedelta) -> list[tuple[UUID, Criterion]]:
    """Erasures that have not ended and of which nobody was heard for a while."""
    return [
        (row["id"], Criterion(ErasedBy(row["kind"]), row["criterion"]))
        for row in await database.fetch(UNFINISHED, silent_for)
    ]


async def read(database: Database, erasure_id: UUID) -> Record | None:
    """One record."""
    row = await database.fetchrow(READ, erasure_id)
    return _to_record(dict(row)) if row is not None else None


async def find_of_email(database: Database, email_id: UUID) -> Record | None:
    """The erasure that removed an email."""
    erasure_id = await database.fetchval(OF_EMAIL, email_id)
    return None if erasure_id is None else await read(database, erasure_id)


async def list_newest(database: Database, limit: int) -> list[Record]:
    """The records, those asked for last first."""
    return [_to_record(dict(row)) for row in await database.fetch(LIST, limit)]


def hash_criterion(criterion: Criterion, salt: str | None = None) -> str:
    """What is kept of a criterion: `salt$hash` in hex."""
    salt = salt or secrets.token_hex(16)
    text = f"{criterion.kind.value} {criterion.value.lower()}".encode()
    digest = hashlib.scrypt(
        text, salt=bytes.fromhex(salt), n=SCRYPT_COST, r=BLOCK_SIZE, p=1, dklen=32
    )
    return f"{salt}${digest.hex()}"


def _to_record(row: dict[str, object]) -> Record:
    erased = Erased(**{name: row.pop(name) for name in attrs.fields_dict(Erased)})  # type: ignore[arg-type]
    return Record(**{**row, "kind": ErasedBy(row["kind"])}, erased=erased)  # type: ignore[arg-type]
