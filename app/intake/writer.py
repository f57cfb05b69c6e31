"""Group commit: emails that arrive while an INSERT is on its way share the next one.

Each is answered after the commit that holds it. One durable commit costs the same for one row as
for a hundred, so under load the batches grow and the cost of an email falls.
"""

import asyncio
import operator
from collections import deque
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.errors import MailroomError
from app.intake.email_row import EmailRow, as_json_string

log = structlog.get_logger(__name__)

# The unique keys decide what is a duplicate, inside the INSERT: a query before it would race.
# NOTIFY rings the Dispatchers at commit.
INSERT = """
WITH stored AS (
    INSERT INTO incoming_emails (
        id, zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject,
        raw_body_html, raw_body_text, received_at, idempotency_key, attachment_urls,
        raw_payload, delivery_signature, processing_status
    )
    SELECT arrived.*, 'received'
    FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
        $7::text[], $8::text[], $9::timestamptz[], $10::text[], $11::json[],
        $12::json[], $13::text[]
    ) AS arrived
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT id, pg_notify('mailroom_received', '') FROM stored
"""

FIND_FIRST = """
SELECT id, idempotency_key, delivery_signature
FROM incoming_emails
WHERE idempotency_key = ANY($1::text[]) OR delivery_signature = ANY($2::text[])
"""

# The row itself is at fault: a value that does not fit, a constraint, a limit such as JSON nested
# beyond PostgreSQL's stack. https://www.postgresql.org/docs/current/errcodes-appendix.html
ROW_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)

# A duplicate's first email may be erased between the INSERT and the look-up: then it is stored.
INSERT_TRIES = 3

# After the deadline: time in which the server may confirm that the INSERT is cancelled. Then the
# connection is given up, since one that went dead would never confirm and hold up the line.
CANCEL_SECONDS = 2.0


class NotStoredError(MailroomError):
    """The email is not stored; the sender has to try again."""


@attrs.frozen
class Admission:
    """An email that is stored: under this id, now or since an earlier delivery."""

    email_id: UUID
    is_duplicate: bool


_columns = operator.attrgetter(*(field.name for field in attrs.fields(EmailRow)))


@attrs.frozen
class _Waiting:
    row: EmailRow
    answer: "asyncio.Future[Admission]"


class GroupCommit:
    """Stores rows in batches over one connection at a time.

    Args:
        pool: connections to the database.
        batch_rows: most rows of one INSERT.
        max_waiting: most rows that wait; further ones are refused at once.
        deadline_seconds: time that one batch is given.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        batch_rows: int,
        max_waiting: int,
        deadline_seconds: float,
    ) -> None:
        self._pool = pool
        self._batch_rows = batch_rows
        self._max_waiting = max_waiting
        self._deadline_seconds = deadline_seconds
        self._line: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="group-commit")

    async def store(self, row: EmailRow) -> Admission:
        """Wait until a row is committed, or found to be a duplicate.

        Raises:
            NotStoredError: it is not, and the caller has to say so.
        """
        if self._closing:
            raise NotStoredError("the server is stopping: send the webhook again")
        if len(self._line) >= self._max_waiting:
            raise NotStoredError("too many emails wait for the database: send the webhook again")
        waiting = _Waiting(row, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def close(self) -> None:
        """Store what waits, then stop."""
        self._closing = True
        self._arrived.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._line:
                # Somebody who gave up waiting was told 503: their row must not be stored unless
                # its INSERT is already on its way.
                count = min(len(self._line), self._batch_rows)
                taken = [self._line.popleft() for _ in range(count)]
                await self._store([w for w in taken if not w.answer.done()])
            if self._closing:
                return

    async def _store(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await self._insert(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders must be answered
            log.error("intake_not_stored", rows=len(batch), error=type(error).__name__)
            refuse(batch, "the database does not take emails at the moment")

    async def _insert(self, batch: list[_Waiting]) -> None:
        # In one order everywhere: two web processes that insert the same keys in different orders
        # would each wait for the other.
        batch = sorted(batch, key=_keys)
        connection = await self._pool.acquire()
        try:
            admissions = await _insert_rows(connection, [w.row for w in batch])
        except ROW_ERRORS:
            for waiting in batch:
                await _insert_alone(connection, waiting)
            return
        finally:
            await self._pool.release(connection, timeout=CANCEL_SECONDS)
        for waiting, admission in zip(batch, admissions, strict=True):
            _answer(waiting, admission)


def _keys(waiting: _Waiting) -> tuple[str, str]:
    return waiting.row.idempotency_key or "", waiting.row.delivery_signature or ""


def refuse(batch: Sequence[_Waiting], reason: str) -> None:
    """Tell those who still wait that their email is not stored."""
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(NotStoredError(f"{reason}: send the webhook again"))


def _answer(waiting: _Waiting, admission: Admission | None) -> None:
    if admission is None:
        refuse([waiting], "the email collided with one that was being erased")
    elif not waiting.answer.done():
        waiting.answer.set_result(admission)


async def _insert_alone(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", waiting: _Waiting
) -> None:
    """Store one row of a batch in which some row was refused: it must not fail for another's
    fault. If it is the one, its payload is tried as a JSON string, which is never too deep."""
    row = waiting.row
    flat = attrs.evolve(row, raw_payload=as_json_string(row.raw_payload.encode()))
    for attempt in (row, flat):
        try:
            (admission,) = await _insert_rows(connection, [attempt])
        except ROW_ERRORS as error:
            log.warning("intake_row_refused", email_id=str(row.id), error=type(error).__name__)
        else:
            _answer(waiting, admission)
            return
    refuse([waiting], "the database refuses this email")


async def _insert_rows(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", rows: list[EmailRow]
) -> list[Admission | None]:
    admissions: dict[UUID, Admission] = {}
    missing = rows
    for _ in range(INSERT_TRIES):
        stored = await connection.fetch(INSERT, *zip(*map(_columns, missing), strict=True))
        for record in stored:
            admissions[record["id"]] = Admission(record["id"], is_duplicate=False)
        if len(stored) == len(missing):
            break
        missing = [row for row in missing if row.id not in admissions]
        await _find_first(connection, missing, admissions)
        missing = [row for row in missing if row.id not in admissions]
        if not missing:
            break
    return [admissions.get(row.id) for row in rows]


async def _find_first(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
    rows: list[EmailRow],
    admissions: dict[UUID, Admission],
) -> None:
    found = await connection.fetch(
        FIND_FIRST,
        [row.idempotency_key for row in rows if row.idempotency_key],
        [row.delivery_signature for row in rows if row.delivery_signature],
    )
    by_key = {record["idempotency_key"]: record["id"] for record in found}
    by_signature = {record["delivery_signature"]: record["id"] for record in found}
    for row in rows:
        first = row.idempotency_key and by_key.get(row.idempotency_key)
        first = first or (row.delivery_signature and by_signature.get(row.delivery_signature))
        if first:
            admissions[row.id] = Admission(first, is_duplicate=True)
