"""What is removed when it is old enough, each kind as a sweep: pages of what is due, the oldest
first, found by an index without a lock; and the removal of some of them in one short transaction,
which looks at each again and passes by what is locked or wanted meanwhile.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.attachments import expiry, removing
from app.jobs.transitions.common import Database
from app.jobs.transitions.erasing import DELETE_ENTRIES
from app.models.incoming_email import ProcessingStatus
from app.retention.marks import BEGINNING
from app.telemetry.metrics import Pruned

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

FIRST_ID = UUID(int=0)
# It is asked for by a person, and reads all that is due.
LONGEST_COUNT_SECONDS = 600.0

# Nothing goes that is being delivered or fetched, or will be. Looked up one by one: for an EXISTS
# the planner might read all files.
_FREE = """email.sync_status <> 'pending' AND COALESCE((
    SELECT false FROM email_attachments AS file
    WHERE file.email = email.id AND file.state = 'pending' LIMIT 1
), true)"""


@attrs.frozen
class _Statements:
    page: str
    """The next ones that ended in a span, whether they are due or not: so each page is as short as
    another. By ix_incoming_emails_finished."""
    lock: str
    """Those that are due still and that nobody else changes now. As a plain comparison of the state
    it would invite the planner to go by that."""
    count: str

    @classmethod
    def of(cls, due: str) -> "_Statements":
        return cls(
            f"""
SELECT id, completed_at AS at, {due} AS is_due, {_FREE} AS is_free
FROM incoming_emails AS email
WHERE processing_status = $1 AND completed_at >= $2 AND (completed_at, id) > ($2, $3)
    AND completed_at < $4
ORDER BY completed_at, id LIMIT $5
""",  # noqa: S608 - of constants
            f"""
SELECT id FROM incoming_emails AS email
WHERE id = ANY($1::uuid[]) AND (processing_status = $2 AND completed_at < $3) IS TRUE
    AND {due} AND {_FREE}
ORDER BY id
FOR UPDATE OF email SKIP LOCKED
""",  # noqa: S608 - of constants
            f"""
SELECT count(*) FILTER (WHERE is_free) AS free, count(*) FILTER (WHERE NOT is_free) AS held
FROM (
    SELECT {_FREE} AS is_free FROM incoming_emails AS email
    WHERE processing_status = $1 AND completed_at >= $2 AND completed_at < $3 AND {due}
) AS due
""",  # noqa: S608 - of constants
        )


WHOLE = _Statements.of("true")
BODIES = _Statements.of("email.bodies_removed_at IS NULL AND email.erased_at IS NULL")

# An email that nobody could read has a copy of its own id there.
DELETE_COPIES = "DELETE FROM quarantined_webhooks WHERE id = ANY($1::uuid[])"
DELETE = "DELETE FROM incoming_emails WHERE id = ANY($1::uuid[])"
REMOVE_BODIES = """
UPDATE incoming_emails
SET raw_body_html = NULL, raw_body_text = NULL, cleaned_body = NULL, raw_payload = NULL,
    original_body = NULL, bodies_removed_at = now(), updated_at = now()
WHERE id = ANY($1::uuid[])
"""


@attrs.frozen
class Found:
    """Something that a page shows."""

    id: Any
    at: datetime
    is_due: bool
    is_free: bool
    """Nothing holds it back."""


@attrs.frozen
class Count:
    """What would be removed now, and what is old enough and held back."""

    free: int
    held: int


class Sweep(Protocol):
    """One kind of removal."""

    @property
    def kind(self) -> Pruned:
        """What is counted."""
        ...

    @property
    def name(self) -> str:
        """Of its mark; no two have the same."""
        ...

    @property
    def what(self) -> str:
        """In words, as in "120 completed emails"."""
        ...

    @property
    def since(self) -> datetime:
        """What ended before is another sweep's."""
        ...

    @property
    def before(self) -> datetime:
        """What ended before is old enough."""
        ...

    @property
    def least_id(self) -> Any:
        """No id comes before it."""
        ...

    async def page(
        self, database: Database, since: datetime, after: Any, limit: int
    ) -> list[Found]:
        """The next ones, the oldest first, from a moment and an id on; nothing at the end."""
        ...

    async def remove(self, connection: Connection, ids: Sequence[Any]) -> set[Any]:
        """Remove them in a transaction of the caller's. Returns which."""
        ...

    async def count(self, database: Database) -> Count:
        """Count all that are due."""
        ...


@attrs.frozen
class EmailSweep:
    """Emails in a final state: whole, with their files, their history and their copies; or of those
    that stay the texts."""

    kind: Pruned
    status: ProcessingStatus
    before: datetime
    since: datetime = BEGINNING

    least_id = FIRST_ID

    @property
    def name(self) -> str:
        return f"{self.kind} {self.status}"

    @property
    def what(self) -> str:
        return f"{'texts of ' if self._statements is BODIES else ''}{self.status} emails"

    @property
    def _statements(self) -> _Statements:
        return BODIES if self.kind is Pruned.BODIES else WHOLE

    async def page(
        self, database: Database, since: datetime, after: UUID, limit: int
    ) -> list[Found]:
        rows = await database.fetch(
            self._statements.page, self.status, since, after, self.before, limit
        )
        return [Found(*row) for row in rows]

    async def remove(self, connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
        rows = await connection.fetch(self._statements.lock, ids, self.status, self.before)
        locked = [row["id"] for row in rows]
        if self._statements is BODIES:
            await connection.execute(REMOVE_BODIES, locked)
        else:
            await removing.erase(connection, locked)
            for statement in (DELETE_ENTRIES, DELETE_COPIES, DELETE):
                await connection.execute(statement, locked)
        return set(locked)

    async def count(self, database: Database) -> Count:
        return await count_of(
            database, self._statements.count, self.status, self.since, self.before
        )


@attrs.frozen
class TimedSweep:
    """Rows that are found by a moment of theirs, in the order of it and of their ids."""

    before: datetime
    since: datetime = BEGINNING

    least_id = FIRST_ID
    page_statement: ClassVar[str]
    count_statement: ClassVar[str]

    async def page(
        self, database: Database, since: datetime, after: UUID, limit: int
    ) -> list[Found]:
        rows = await database.fetch(self.page_statement, since, after, self.before, limit)
        return [Found(*row) for row in rows]

    async def count(self, database: Database) -> Count:
        return await count_of(database, self.count_statement, self.before)


@attrs.frozen
class FileSweep(TimedSweep):
    """Files that were fetched; their rows stay."""

    kind = Pruned.ATTACHMENTS
    name = "attachments"
    what = "files of emails"
    page_statement = expiry.PAGE
    count_statement = expiry.COUNT

    async def remove(self, connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
        return await expiry.expire(connection, ids, self.before)


async def count_of(database: Database, statement: str, *arguments: object) -> Count:
    """Ask for a count, however long that takes."""
    row = await database.fetchrow(statement, *arguments, timeout=LONGEST_COUNT_SECONDS)
    return Count(**dict(row or {}))
