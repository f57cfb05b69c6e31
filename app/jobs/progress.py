"""What handlers tell of their progress, on its way into the emails' stories: the latest text of an
attempt, at most one write a second for each email, and many emails with one statement.

It is for people who look, so nothing waits for it for long, and a database that is away costs a
text and no more.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from enum import Enum, auto

import asyncpg
import attrs
import structlog

from app.database.errors import CANNOT_ASK
from app.database.group_commit import GroupCommit
from app.jobs.transitions.common import HELD, Claim
from app.models.entries import told

log = structlog.get_logger(__name__)

BATCH_ROWS = 500
PAUSE_SECONDS = 1.0
# The keeper has an email locked for a moment, when it extends its lease.
BUSY_PAUSE_SECONDS = 0.02
MOST_TRIES = 5
# What a result waits for its handler's last text.
SETTLE_SECONDS = 2.0

ENTRY = """jsonb_build_object('at', clock_timestamp(), 'attempt', retry_count + 1,
    'error', 'progress: ' || text, 'progress', true)"""
# The text before it of the same attempt is replaced, so that a row does not grow by what a handler
# tells, and its errors are not pushed out. As wherever many emails are changed at once, they are
# locked in one order and found by an array of ids, and one that somebody has locked holds up none.
TELL = f"""
WITH note AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS note (email_id, token, text)
),
free AS MATERIALIZED (
    SELECT email.id, token
    FROM incoming_emails AS email JOIN note ON email.id = email_id AND email.started_at = token
    WHERE email.id = ANY (ARRAY(SELECT email_id FROM note)) AND {HELD}
    ORDER BY email.id
    FOR UPDATE OF email SKIP LOCKED
)
UPDATE incoming_emails AS email
SET updated_at = now(), attempt_errors = CASE
    WHEN attempt_errors -> -1 @> jsonb_build_object('attempt', retry_count + 1, 'progress', true)
    THEN (attempt_errors - (-1)) || jsonb_build_array({ENTRY})
    ELSE {told(ENTRY)} END
FROM free JOIN note ON free.id = email_id AND free.token = note.token
WHERE email.id = ANY (ARRAY(SELECT id FROM free)) AND email.id = free.id
RETURNING email.id, free.token
"""  # noqa: S608 - a constant


@attrs.frozen
class Note:
    """What the handler of a claim told last."""

    claim: Claim
    text: str


class Told(Enum):
    """What became of a note."""

    WRITTEN = auto()
    NOT_WRITTEN = auto()
    """Another transaction has the email locked, or the claim stands no longer."""


class Notes(GroupCommit[Note, Told]):
    """Writes notes, in the event loop it is made in."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        super().__init__(batch_rows=BATCH_ROWS)
        self._pool = pool

    async def commit(self, rows: Sequence[Note]) -> list[Told]:
        written = await self._pool.fetch(
            TELL,
            [note.claim.email_id for note in rows],
            [note.claim.started_at for note in rows],
            [note.text for note in rows],
        )
        claims = {(row["id"], row["token"]) for row in written}
        return [
            Told.WRITTEN
            if (note.claim.email_id, note.claim.started_at) in claims
            else Told.NOT_WRITTEN
            for note in rows
        ]


class Progress:
    """The progress of one claim."""

    def __init__(self, notes: Notes, claim: Claim) -> None:
        self._notes = notes
        self._claim = claim
        self._text: str | None = None
        self._ended = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def tell(self, text: str) -> None:
        """Have a text written, in place of one that waits. In the event loop alone."""
        if self._ended.is_set():
            return
        self._text = text
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="progress")

    async def settle(self) -> None:
        """Take no further text, and wait a little until the last one is written."""
        self._ended.set()
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=SETTLE_SECONDS)

    async def _write(self) -> None:
        while self._text is not None:
            note, self._text = Note(self._claim, self._text), None
            try:
                await self._write_note(note)
            except CANNOT_ASK as error:
                log.debug("progress_not_written", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._ended.wait()
        self._writer = None

    async def _write_note(self, note: Note) -> None:
        for _ in range(MOST_TRIES):
            if await self._notes.store(note) is Told.WRITTEN:
                return
            await asyncio.sleep(BUSY_PAUSE_SECONDS)
