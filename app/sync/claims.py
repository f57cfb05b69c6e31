"""How a worker takes what it delivers: what is due, if the receiver is delivered to, under a token
and a lease of its own."""

from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.models.email_event import EmailEventKind, events_of

Database: TypeAlias = (
    "asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    " | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)

VANISHED = "the worker that delivered it vanished"

# Of a ticket with more emails, none is given a number: to count them would take too long.
MOST_NUMBERED = 1_000


class Source(StrEnum):
    """Where something stands that is delivered; the name of the table."""

    EMAILS = "incoming_emails"
    EVENTS = "sync_events"


# The receiver is delivered to, or is probed under this token.
_MAY_DELIVER = """(SELECT EXISTS (
    SELECT FROM sync_receivers
    WHERE name = $3 AND paused_at IS NULL AND COALESCE(rests_until, '-infinity') <= now()
        AND CASE WHEN $4::uuid IS NULL THEN state = 'closed' ELSE probe_token = $4 END
))"""
# As the index has it, so that no other one that holds what is pending is gone by: without an order,
# the whole of it would be read and sorted each time.
_PENDING = "(sync_status = 'pending') IS TRUE"
_DUE = f"""{_PENDING} AND sync_next_attempt_at <= now()
        AND (sync_lease_expires_at IS NULL OR sync_lease_expires_at <= now())"""
# While a job is queued again by an operator, its result is not the last one.
_HAS_ENDED = "(processing_status IN ('completed', 'failed')) IS TRUE"
# A claim that ended without a word counts as a try: what kills its worker must not do so for ever.
_CLAIMED = """sync_token = gen_random_uuid(), sync_lease_expires_at = clock_timestamp() + $2,
    sync_retry_count = sync_retry_count + (sync_token IS NOT NULL)::int"""

_NUMBER = f"""(
    SELECT CASE WHEN count(*) <= {MOST_NUMBERED} THEN count(*) FILTER (
        WHERE (of_ticket.received_at, of_ticket.id) <= (email.received_at, email.id)
    ) END
    FROM (
        SELECT received_at, id FROM incoming_emails AS other
        WHERE other.zendesk_ticket_id = email.zendesk_ticket_id
        LIMIT {MOST_NUMBERED + 1}
    ) AS of_ticket
)"""  # noqa: S608 - a constant
_FILES = """(
    SELECT json_agg(json_build_object(
        'position', file.position, 'filename', file.filename, 'content_type',
        COALESCE(file.content_type, file.claimed_content_type), 'size',
        COALESCE(file.size, file.claimed_size), 'inline', file.is_inline, 'state', file.state
    ) ORDER BY file.position)
    FROM email_attachments AS file WHERE file.email = email.id
)"""
# A text that would not fit is not even fetched.
_TEXTS = ",\n    ".join(
    f"CASE WHEN octet_length({column}) <= {most} THEN {column} END AS {name},"
    f" COALESCE(octet_length({column}) > {most}, false) AS is_long_{name}"
    for name, column, most in (
        ("cleaned_body", "email.cleaned_body", "$5"),
        ("body_text", "email.raw_body_text", "$5"),
        ("body_html", "email.raw_body_html", "$5"),
        ("extracted_data", "email.extracted_data::text", "$6"),
    )
)
_EMAIL = f"""zendesk_ticket_id, zendesk_account_id, zendesk_comment_id, from_email, from_name,
    idempotency_key, origin, subject, received_at, completed_at, processing_status,
    processing_error,
    {_NUMBER} AS ticket_number, {_FILES} AS files, erased_at IS NOT NULL AS is_erased,
    bodies_removed_at,
    {_TEXTS}"""


# Of a worker that held it and vanished, nobody else tells.
_TAKEN_OVER = "sync_token IS NOT NULL AS is_taken_over, sync_retry_count + 1 AS tries"


def _returning(source: str) -> str:
    return f"""id, sync_token, sync_version, sync_retry_count,
    id = ANY (ARRAY(SELECT id FROM {source} WHERE is_taken_over)) AS is_taken_over"""  # noqa: S608 - a constant


def _history(source: str) -> str:
    return f"""history AS ({
        events_of(
            f"{source} WHERE is_taken_over",
            EmailEventKind.DELIVERY,
            f"'{VANISHED}'",
            attempt="tries",
        )
    })"""


def _claim(first: str) -> str:
    return f"""
WITH due AS MATERIALIZED (
    SELECT id, {_TAKEN_OVER} FROM incoming_emails
    WHERE {_DUE} AND {_HAS_ENDED} AND {_MAY_DELIVER}
    ORDER BY {first}
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),
{_history("due")}
UPDATE incoming_emails AS email SET {_CLAIMED}
WHERE id = ANY (ARRAY(SELECT id FROM due))
RETURNING {_returning("due")}, {_EMAIL}
"""  # noqa: S608 - a constant


# SKIP LOCKED keeps workers apart.
CLAIM_EMAILS = _claim("sync_next_attempt_at")
# What was asked for last is most probably no email that no receiver takes.
CLAIM_PROBE = _claim("sync_next_attempt_at DESC")

# In the order of a ticket: what has an earlier one before it that is still in the job or not
# delivered is put off, and is looked at again when that is through; so the head of the line is
# never full of those that wait. `IS TRUE` is for the same reason.
CLAIM_IN_ORDER = f"""
WITH due AS MATERIALIZED (
    SELECT id, zendesk_ticket_id, received_at, sync_next_attempt_at, {_TAKEN_OVER}
    FROM incoming_emails
    WHERE {_DUE} AND {_HAS_ENDED} AND {_MAY_DELIVER}
    ORDER BY sync_next_attempt_at
    LIMIT GREATEST($1 * 4, 100)
    FOR UPDATE SKIP LOCKED
),
judged AS MATERIALIZED (
    SELECT id, sync_next_attempt_at, is_taken_over, tries, EXISTS (
        SELECT FROM incoming_emails AS earlier
        WHERE (earlier.sync_status = 'pending') IS TRUE
            AND earlier.zendesk_ticket_id = due.zendesk_ticket_id
            AND (earlier.received_at, earlier.id) < (due.received_at, due.id)
    ) OR EXISTS (
        SELECT FROM incoming_emails AS earlier
        WHERE earlier.zendesk_ticket_id = due.zendesk_ticket_id
            AND (earlier.processing_status IN ('received', 'queued', 'processing')) IS TRUE
            AND (earlier.received_at, earlier.id) < (due.received_at, due.id)
    ) AS waits
    FROM due
),
put_off AS (
    UPDATE incoming_emails SET sync_next_attempt_at = now() + $7
    WHERE id = ANY (ARRAY(SELECT id FROM judged WHERE waits))
),
chosen AS MATERIALIZED (
    SELECT * FROM judged WHERE NOT waits ORDER BY sync_next_attempt_at LIMIT $1
),
{_history("chosen")}
UPDATE incoming_emails AS email SET {_CLAIMED}
WHERE id = ANY (ARRAY(SELECT id FROM chosen))
RETURNING {_returning("chosen")}, {_EMAIL}
"""  # noqa: S608 - a constant

CLAIM_EVENTS = f"""
WITH due AS MATERIALIZED (
    SELECT id, {_TAKEN_OVER} FROM sync_events WHERE {_DUE} AND {_MAY_DELIVER}
    ORDER BY sync_next_attempt_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE sync_events SET {_CLAIMED}
WHERE id = ANY (ARRAY(SELECT id FROM due))
RETURNING {_returning("due")}, kind, email, created_at
"""  # noqa: S608 - a constant


@attrs.frozen
class Claimed:
    """Something that this process delivers, for as long as its token stands."""

    source: Source
    id: UUID
    token: UUID
    version: int
    failed_tries: int
    """Of this result."""
    is_taken_over: bool
    """A worker that held it vanished, which counts as a try that failed."""
    columns: "asyncpg.Record" = attrs.field(repr=False)
    """What is told of it."""

    @property
    def email_id(self) -> UUID:
        """The email that it is about; its row may be gone."""
        email_id: UUID = self.id if self.source is Source.EMAILS else self.columns["email"]
        return email_id


async def claim_emails(
    database: Database,
    *,
    limit: int,
    lease: timedelta,
    receiver: str,
    most_body_bytes: int,
    most_data_bytes: int,
    probe: UUID | None = None,
    put_off: timedelta | None = None,
) -> list[Claimed]:
    """pending -> pending, by a worker that delivers: emails that are due, if the receiver is
    delivered to.

    Args:
        receiver: its name in `sync_receivers`.
        most_body_bytes: of a text of the email that is fetched.
        most_data_bytes: of what the handler found, in JSON.
        probe: the token of a probe.
        put_off: keep the order of tickets, and look so much later at those that wait for earlier
            ones.
    """
    arguments: list[Any] = [limit, lease, receiver, probe, most_body_bytes, most_data_bytes]
    if put_off is not None:
        statement, arguments = CLAIM_IN_ORDER, [*arguments, put_off]
    else:
        statement = CLAIM_EMAILS if probe is None else CLAIM_PROBE
    rows = await database.fetch(statement, *arguments)
    return [_claimed(Source.EMAILS, row) for row in rows]


async def claim_events(
    database: Database, *, limit: int, lease: timedelta, receiver: str, probe: UUID | None = None
) -> list[Claimed]:
    """pending -> pending, as `claim_emails`: what is told besides the ends of emails."""
    rows = await database.fetch(CLAIM_EVENTS, limit, lease, receiver, probe)
    return [_claimed(Source.EVENTS, row) for row in rows]


def _claimed(source: Source, row: "asyncpg.Record") -> Claimed:
    return Claimed(
        source,
        row["id"],
        row["sync_token"],
        row["sync_version"],
        row["sync_retry_count"],
        row["is_taken_over"],
        row,
    )
