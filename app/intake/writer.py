"""Writing emails: many of them with one INSERT, duplicates found by the unique keys."""

import operator
from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.database.group_commit import ROW_ERRORS
from app.intake.admission import NO_EMAIL, Admission
from app.intake.canary import CanaryRow, try_out
from app.intake.email_row import EmailRow, as_json_string
from app.intake.erasure_rules import erasures_of, is_erased
from app.intake.late_webhooks import LOCK_TICKETS, find_made
from app.intake.row_writer import Connection, NotStoredError, RowWriter
from app.intake.unstorable import REFUSED_BY_DATABASE, UnstorableError
from app.models.erasure import comment_key, comment_key_sql
from app.telemetry.metrics import BATCH_ROWS

log = structlog.get_logger(__name__)

_COMMENT = comment_key_sql("account", "ticket", "comment")

# The unique keys decide what is a duplicate, inside the INSERT: a query before it would race.
# NOTIFY rings the Dispatchers at commit. What has a tombstone is left out by the same statement:
# who erases waits for those that began before it was there (`app.jobs.transitions.erasing`).
INSERT = f"""
WITH buried AS MATERIALIZED (
    SELECT ARRAY(
        SELECT tombstones.key::text FROM tombstones
        WHERE tombstones.key = ANY($10::text[] || $13::text[] || ARRAY(
            SELECT {_COMMENT}
            FROM unnest($16::text[], $2::text[], $17::text[]) AS asked (account, ticket, comment)
            WHERE comment IS NOT NULL
        ))
    ) AS keys
),
stored AS (
    INSERT INTO incoming_emails (
        id, zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject,
        raw_body_html, raw_body_text, received_at, idempotency_key, attachment_urls,
        raw_payload, delivery_signature, attempt_errors, original_body, zendesk_account_id,
        zendesk_comment_id, extracted_data, processing_status, processing_error, completed_at,
        origin, signed_at
    )
    SELECT arrived.*
    FROM buried, unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
        $7::text[], $8::text[], $9::timestamptz[], $10::text[], $11::json[],
        $12::json[], $13::text[], $14::jsonb[], $15::bytea[], $16::text[], $17::text[],
        $18::json[], $19::text[], $20::text[], $21::timestamptz[], $22::text[],
        $23::timestamptz[]
    ) AS arrived (
        id, ticket, webhook, sender, name, subject, html, text, received, key, files,
        payload, signature, told, original, account, comment
    )
    WHERE (buried.keys = '{{{{}}}}' OR NOT ARRAY[key, signature, {_COMMENT}] && buried.keys)
    {{condition}}
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT id, pg_notify('mailroom_received', '') FROM stored
"""  # noqa: S608 - a constant

# What Zendesk erased is not brought back by a replay, nor what was made of a comment by a webhook
# that is late. Of most tickets there is neither, and a query before would cost each batch a second
# journey. An erasure that comes at the same moment is done again a little later.
INSERT_UNLESS_IN_QUESTION = INSERT.format(
    # Looked up once by the index: for a join the planner reads the whole table if it is small.
    condition="""AND arrived.ticket <> ALL (ARRAY(
        SELECT ticket_id::text FROM zendesk_erasures WHERE ticket_id = ANY($2::text[])
        UNION ALL
        SELECT ticket_id::text FROM zendesk_tickets_in_question WHERE ticket_id = ANY($2::text[])
    ))"""
)
INSERT_ANYWAY = INSERT.format(condition="")

# What could not be read and now can takes the place of its row: its template became known, or a
# person mended it. The row is as it was stored, or failed again after an operator's retry.
REPLACE_UNREADABLE = """
UPDATE incoming_emails AS email
SET zendesk_ticket_id = arrived.ticket, zendesk_webhook_id = arrived.webhook,
    from_email = arrived.sender, from_name = arrived.name, subject = arrived.subject,
    raw_body_html = arrived.html, raw_body_text = arrived.text, received_at = arrived.received,
    attachment_urls = arrived.files, raw_payload = arrived.payload,
    original_body = arrived.original,
    idempotency_key = coalesce(arrived.key, email.idempotency_key),
    zendesk_account_id = arrived.account, zendesk_comment_id = arrived.comment,
    attempt_errors = email.attempt_errors || arrived.told || jsonb_build_array(jsonb_build_object(
        'at', now(), 'attempt', 0, 'error', 'could be read now; before, ' || email.processing_error
    )),
    extracted_data = arrived.data, processing_status = 'received', processing_error = NULL,
    completed_at = NULL, processed_at = NULL, retry_count = 0, claims = 0, lost_claims = 0,
    bodies_removed_at = NULL, updated_at = now()
FROM (
    SELECT $1::uuid, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text,
        $9::timestamptz, $10::json, $11::json, $12::jsonb, $13::json, $14::bytea,
        $15::text, $16::text, $17::text
) AS arrived (
    id, ticket, webhook, sender, name, subject, html, text, received, files, payload, told, data,
    original, key, account, comment
)
WHERE email.id = arrived.id AND (email.processing_status = 'failed') IS TRUE
    AND email.extracted_data::text LIKE '{"unreadable": %'
RETURNING pg_notify('mailroom_received', '')
"""

# Tombstones come first: what is there counts, until it has gone.
FIND_FIRST = """
SELECT email AS id, key AS idempotency_key, key AS delivery_signature, key AS comment_key,
    false AS is_unreadable
FROM tombstones
WHERE key = ANY($1::text[] || $2::text[] || $3::text[])
UNION ALL
SELECT id, idempotency_key, delivery_signature, NULL,
    processing_status = 'failed' AND extracted_data::text LIKE '{"unreadable": %'
FROM incoming_emails
WHERE idempotency_key = ANY($1::text[]) OR delivery_signature = ANY($2::text[])
"""

# A duplicate's first email may be erased between the INSERT and the look-up: then it is stored.
INSERT_TRIES = 3


_columns = operator.attrgetter(
    *(field.name for field in attrs.fields(EmailRow) if field.name != "sent_at")
)


class EmailWriter(RowWriter[EmailRow, Admission]):
    """Stores emails; tells which of them were stored before."""

    def size(self, row: EmailRow) -> int:
        texts = (row.raw_payload, row.raw_body_html, row.raw_body_text, row.original_body)
        return sum(map(len, filter(None, texts)))

    async def write(
        self, connection: Connection, rows: Sequence[EmailRow]
    ) -> Sequence[Admission | NotStoredError]:
        # In one order everywhere: web processes that insert the same keys in different orders
        # would wait for each other. There are two keys, so it may happen all the same.
        in_order = sorted((row for row in rows if not isinstance(row, CanaryRow)), key=_keys)
        admissions: dict[UUID, Admission | NotStoredError] = {}
        if in_order:
            BATCH_ROWS.observe(len(in_order))
            stored: dict[UUID, Admission] = {}
            try:
                await _insert_again(connection, in_order, stored)
            except ROW_ERRORS:
                # A row must not fail for another's fault.
                for row in _without(in_order, stored):
                    admissions[row.id] = await self.write_alone(connection, row)
            admissions |= stored
        for row in rows:
            if isinstance(row, CanaryRow):
                is_open = await try_out(connection, row, insert_anyway)
                admissions[row.id] = NO_EMAIL if is_open else NotStoredError("no email is taken")
        return [admissions.get(row.id) or _collided() for row in rows]

    async def write_alone(
        self, connection: Connection, row: EmailRow
    ) -> Admission | NotStoredError:
        """If the row is the refused one, its payload is tried as a JSON string, which is never too
        deep. What is refused all the same would be so each time: an `UnstorableError`."""
        if isinstance(row, CanaryRow):
            return await super().write_alone(connection, row)
        flat = attrs.evolve(row, raw_payload=as_json_string(row.raw_payload.encode()))
        for attempt in (row, flat):
            stored: dict[UUID, Admission] = {}
            try:
                await _insert_again(connection, [attempt], stored)
            except ROW_ERRORS as error:
                log.warning("intake_row_refused", email_id=str(row.id), error=type(error).__name__)
            else:
                return stored.get(row.id) or _collided()
        return UnstorableError(REFUSED_BY_DATABASE)


def _keys(row: EmailRow) -> tuple[str, str]:
    return row.idempotency_key or "", row.delivery_signature or ""


def _collided() -> NotStoredError:
    return NotStoredError("the email collided with one that was being erased: send it again")


async def insert_anyway(connection: Connection, rows: Sequence[EmailRow]) -> set[UUID]:
    """Store rows without a look at their tickets, which the caller has locked. Returns the ids of
    those that found a place."""
    records = await connection.fetch(INSERT_ANYWAY, *zip(*map(_columns, rows), strict=True))
    return {record["id"] for record in records}


async def _insert_again(
    connection: Connection, rows: Sequence[EmailRow], admissions: dict[UUID, Admission]
) -> None:
    """As `_insert_rows`, twice where a deadlock ends the first try."""
    try:
        await _insert_rows(connection, rows, admissions)
    except asyncpg.TransactionRollbackError:
        # What the first try stored would be taken for an earlier delivery of itself.
        if left := _without(rows, admissions):
            await _insert_rows(connection, left, admissions)


async def _insert_rows(
    connection: Connection, rows: Sequence[EmailRow], admissions: dict[UUID, Admission]
) -> None:
    """Store rows. Adds what became of each to `admissions`, by its id, as soon as it is committed,
    also where the rest fails; those that found no place are left out."""
    records = await connection.fetch(
        INSERT_UNLESS_IN_QUESTION, *zip(*map(_columns, rows), strict=True)
    )
    admissions |= _stored({record["id"] for record in records}, rows)
    missing = _without(rows, admissions)
    if not missing:
        return
    erasures = await erasures_of(connection, list({row.zendesk_ticket_id for row in missing}))
    admissions |= {row.id: NO_EMAIL for row in missing if is_erased(erasures, row)}
    for attempt in range(INSERT_TRIES):
        missing = _without(missing, admissions)
        if missing:
            await _find_first(connection, missing, admissions)
        missing = _without(missing, admissions)
        if not missing or attempt == INSERT_TRIES - 1:
            break
        # Something of its ticket was erased or made of a comment, or the email that it repeats has
        # just been erased.
        settled: dict[UUID, Admission] = {}
        async with connection.transaction():
            await connection.execute(LOCK_TICKETS, [row.zendesk_ticket_id for row in missing])
            readable = await _find_first(connection, missing, settled)
            left = _without(missing, settled)
            made = await find_made(connection, left, readable)
            settled |= {
                row_id: Admission(email_id, is_duplicate=True) for row_id, email_id in made.items()
            }
            for row in _without(left, settled):
                if (first := readable.get(row.id)) is not None:
                    replaced = await connection.fetch(REPLACE_UNREADABLE, first, *_content(row))
                    settled[row.id] = Admission(first, is_duplicate=not replaced)
            if left := _without(left, settled):
                settled |= _stored(await insert_anyway(connection, left), left)
        admissions |= settled


def _without(rows: Sequence[EmailRow], admissions: Mapping[UUID, Admission]) -> list[EmailRow]:
    return [row for row in rows if row.id not in admissions]


def _stored(ids: set[UUID], rows: Sequence[EmailRow]) -> dict[UUID, Admission]:
    return {
        row.id: Admission(row.id, is_duplicate=False, unreadable=row.processing_error)
        for row in rows
        if row.id in ids
    }


async def _find_first(
    connection: Connection,
    rows: list[EmailRow],
    admissions: dict[UUID, Admission],
) -> dict[UUID, UUID]:
    """Find what these repeat. Returns the rows that nobody could read, by the ids of those that can
    be read now: unless their email was made of its comment meanwhile, these take their places."""
    found = await connection.fetch(
        FIND_FIRST,
        [row.idempotency_key for row in rows if row.idempotency_key],
        [row.delivery_signature for row in rows if row.delivery_signature],
        [key for row in rows if (key := _comment_key(row))],
    )
    by_key = {record["idempotency_key"]: record["id"] for record in found}
    by_signature = {record["delivery_signature"]: record["id"] for record in found}
    by_comment = {record["comment_key"]: record["id"] for record in found}
    readable: dict[UUID, UUID] = {}
    replaceable = {record["id"] for record in found if record["is_unreadable"]}
    for row in rows:
        first = row.idempotency_key and by_key.get(row.idempotency_key)
        first = first or (row.delivery_signature and by_signature.get(row.delivery_signature))
        first = first or by_comment.get(_comment_key(row) or "")
        if first and row.processing_error is None and first in replaceable:
            readable[row.id] = first
        elif first:
            # What was mended meanwhile is read, whatever comes again.
            unreadable = row.processing_error if first in replaceable else None
            admissions[row.id] = Admission(first, is_duplicate=True, unreadable=unreadable)
    return readable


def _comment_key(row: EmailRow) -> str | None:
    return comment_key(row.zendesk_account_id, row.zendesk_ticket_id, row.zendesk_comment_id)


_content = operator.attrgetter(
    *("zendesk_ticket_id", "zendesk_webhook_id", "from_email", "from_name", "subject"),
    *("raw_body_html", "raw_body_text", "received_at", "attachment_urls", "raw_payload"),
    *("attempt_errors", "extracted_data", "original_body", "idempotency_key"),
    *("zendesk_account_id", "zendesk_comment_id"),
)
