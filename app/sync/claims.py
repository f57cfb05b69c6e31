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

# Of so many that are due one is the probe.
PROBED_AMONG = 100
# What a probe was before stays due, so that it goes with all the rest when the receiver is back;
# others are probes before it does so again, as it may be what no receiver takes.
_PROBED_FIRST = "has_failed, random()"

# Of a ticket, with one statement, which others wait for: each is a row with many indexes.
MOST_PUT_OFF = 2_000
# What has waited for long is looked at more seldom: thousands behind one email, as a mail loop
# leaves them, would be written each half minute.
PUT_OFF_SHARE = 0.1
MOST_PUT_OFF_SECONDS = 600

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


_RETURNING = """id, sync_token, sync_version, sync_retry_count,
    id = ANY (ARRAY(SELECT id FROM chosen WHERE is_taken_over)) AS is_taken_over"""
_HISTORY = f"""history AS ({
    events_of(
        "chosen WHERE is_taken_over",
        EmailEventKind.DELIVERY,
        f"'{VANISHED}'",
        attempt="tries",
    )
})"""


def _claim(source: Source, *, is_probe: bool) -> str:
    besides = f" AND {_HAS_ENDED}" if source is Source.EMAILS else ""
    # SKIP LOCKED keeps workers apart.
    due = f"""due AS MATERIALIZED (
    SELECT id, sync_error IS NOT NULL AS has_failed, {_TAKEN_OVER} FROM {source}
    WHERE {_DUE} AND {_MAY_DELIVER}{besides}
    ORDER BY sync_next_attempt_at{" DESC" if is_probe else ""}
    LIMIT {PROBED_AMONG if is_probe else "$1"}
    FOR UPDATE SKIP LOCKED
),
chosen AS MATERIALIZED (
    SELECT * FROM due{f" ORDER BY {_PROBED_FIRST} LIMIT $1" if is_probe else ""}
)"""  # noqa: S608 - a constant
    if source is Source.EVENTS:
        # The email may be gone, and its story with it.
        return f"""
WITH {due}
UPDATE sync_events SET {_CLAIMED}
WHERE id = ANY (ARRAY(SELECT id FROM chosen))
RETURNING {_RETURNING}, kind, email, created_at
"""  # noqa: S608 - a constant
    return f"""
WITH {due},
{_HISTORY}
UPDATE incoming_emails AS email SET {_CLAIMED}
WHERE id = ANY (ARRAY(SELECT id FROM chosen))
RETURNING {_RETURNING}, {_EMAIL}
"""  # noqa: S608 - a constant


CLAIM = {source: _claim(source, is_probe=False) for source in Source}
PROBE = {source: _claim(source, is_probe=True) for source in Source}


# In the order of a ticket: what has an earlier one before it that is still in the job or not
# delivered is put off, with all that are due behind it, and is looked at again when that is
# through; so the head of the line is never full of those that wait. `IS TRUE` is for the same
# reason. What has no ticket waits for nothing.
def _in_order(first: str) -> str:
    return f"""
WITH due AS MATERIALIZED (
    SELECT id, NULLIF(zendesk_ticket_id, '') AS ticket, received_at, sync_next_attempt_at,
        sync_error IS NOT NULL AS has_failed, {_TAKEN_OVER}
    FROM incoming_emails
    WHERE {_DUE} AND {_HAS_ENDED} AND {_MAY_DELIVER}
    ORDER BY sync_next_attempt_at
    LIMIT GREATEST($1 * 4, 100)
    FOR UPDATE SKIP LOCKED
),
judged AS MATERIALIZED (
    SELECT due.*, EXISTS (
        SELECT FROM incoming_emails AS earlier
        WHERE (earlier.sync_status = 'pending') IS TRUE
            AND earlier.zendesk_ticket_id = due.ticket
            AND (earlier.received_at, earlier.id) < (due.received_at, due.id)
    ) OR EXISTS (
        SELECT FROM incoming_emails AS earlier
        WHERE earlier.zendesk_ticket_id = due.ticket
            AND (earlier.processing_status IN ('received', 'queued', 'processing')) IS TRUE
            AND (earlier.received_at, earlier.id) < (due.received_at, due.id)
    ) AS waits
    FROM due
),
behind AS MATERIALIZED (
    SELECT later.id FROM (
        SELECT DISTINCT ON (ticket) ticket, received_at, id FROM judged WHERE waits
        ORDER BY ticket, received_at, id
    ) AS waiting CROSS JOIN LATERAL (
        SELECT id FROM incoming_emails
        WHERE zendesk_ticket_id = waiting.ticket AND {_DUE} AND {_HAS_ENDED}
            AND (incoming_emails.received_at, incoming_emails.id) > (
                waiting.received_at, waiting.id)
        ORDER BY incoming_emails.received_at, incoming_emails.id
        LIMIT {MOST_PUT_OFF}
        FOR UPDATE SKIP LOCKED
    ) AS later
),
put_off AS (
    UPDATE incoming_emails SET sync_next_attempt_at = now() + GREATEST($7::interval, LEAST(
        (now() - completed_at) * {PUT_OFF_SHARE}, interval '{MOST_PUT_OFF_SECONDS} seconds'
    ))
    WHERE id = ANY (ARRAY(SELECT id FROM judged WHERE waits UNION SELECT id FROM behind))
),
chosen AS MATERIALIZED (
    SELECT * FROM judged WHERE NOT waits ORDER BY {first} LIMIT $1
),
{_HISTORY}
UPDATE incoming_emails AS email SET {_CLAIMED}
WHERE id = ANY (ARRAY(SELECT id FROM chosen))
RETURNING {_RETURNING}, {_EMAIL}
"""  # noqa: S608 - a constant


CLAIM_IN_ORDER = _in_order("sync_next_attempt_at")
PROBE_IN_ORDER = _in_order(_PROBED_FIRST)


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
            ones; at what has waited for long, later than that.
    """
    arguments: list[Any] = [limit, lease, receiver, probe, most_body_bytes, most_data_bytes]
    if put_off is not None:
        statement = CLAIM_IN_ORDER if probe is None else PROBE_IN_ORDER
        arguments.append(put_off)
    else:
        statement = (CLAIM if probe is None else PROBE)[Source.EMAILS]
    rows = await database.fetch(statement, *arguments)
    return [_claimed(Source.EMAILS, row) for row in rows]


async def claim_events(
    database: Database, *, limit: int, lease: timedelta, receiver: str, probe: UUID | None = None
) -> list[Claimed]:
    """pending -> pending, as `claim_emails`: what is told besides the ends of emails."""
    statements = CLAIM if probe is None else PROBE
    rows = await database.fetch(statements[Source.EVENTS], limit, lease, receiver, probe)
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
