"""What is known of suspended mail: a row for each that Zendesk lists, and what was done about
it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.alerts.alarms import Database
from app.models.fit import containing
from app.zendesk.suspended.api import KEPT_BY_ZENDESK, Suspended

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LISTED_AT_MOST = 1_000

# Of what was erased nothing comes back, though Zendesk lists it still. What it lists an hour after
# it was to be recovered was not: if it is deleted later, its copy is the last one.
SEE = """
INSERT INTO suspended_tickets AS row
    (id, cause, cause_text, sender, sender_name, subject, ticket_id, suspended_at, seen_at)
SELECT *, now() FROM unnest(
    $1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::timestamptz[]
) AS found (id, cause, cause_text, sender, sender_name, subject, ticket_id, suspended_at)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET
    cause = excluded.cause, cause_text = excluded.cause_text, ticket_id = excluded.ticket_id,
    sender = CASE WHEN row.erased_at IS NULL THEN excluded.sender ELSE '' END,
    sender_name = CASE WHEN row.erased_at IS NULL THEN excluded.sender_name END,
    subject = CASE WHEN row.erased_at IS NULL THEN excluded.subject ELSE '' END,
    suspended_at = least(row.suspended_at, excluded.suspended_at), seen_at = excluded.seen_at,
    recover_asked_at = CASE
        WHEN row.recover_asked_at > now() - interval '1 hour' THEN row.recover_asked_at END
"""


def _without_spaces(text: str) -> str:
    return f"regexp_replace({text}, '\\s+', '', 'g')"


# What was to be recovered and is gone before its time was recovered. Its copy in the quarantine
# goes when its email is here, and no answer of Zendesk's is relied on for that. The email is waited
# for an hour; if it did not come then, the copy is the only one, and stays.
FORGET = f"""
WITH unlisted AS (
    SELECT row.id, row.recover_asked_at, copy.id AS copy, row.recover_asked_at IS NOT NULL
            AND row.suspended_at + $2::interval > now() AS is_recovered,
        EXISTS (
            SELECT FROM incoming_emails AS email
            WHERE lower(email.from_email) = lower(row.sender)
                AND email.created_at >= row.recover_asked_at
                AND {_without_spaces("email.raw_body_text")}
                    = {_without_spaces("convert_from(copy.body, 'UTF8')::json ->> 'body_text'")}
        ) AS is_here
    FROM suspended_tickets AS row
    LEFT JOIN quarantined_webhooks AS copy ON copy.id = row.archived_as
    WHERE row.seen_at < $1
), gone AS (
    DELETE FROM suspended_tickets AS row USING unlisted
    WHERE row.id = unlisted.id AND row.seen_at < $1 AND NOT (
        unlisted.is_recovered AND unlisted.copy IS NOT NULL AND NOT unlisted.is_here
        AND unlisted.recover_asked_at > now() - interval '1 hour'
    )
    RETURNING unlisted.copy, unlisted.is_recovered AND unlisted.is_here AS is_here
), copies AS (
    DELETE FROM quarantined_webhooks AS copy USING gone WHERE copy.id = gone.copy AND gone.is_here
)
SELECT count(*) FROM gone
"""  # noqa: S608 - of constants
# Nothing is archived twice: whoever comes second waits for the row, and finds it archived.
HOLD_UNARCHIVED = """
SELECT id FROM suspended_tickets
WHERE id = $1 AND archived_at IS NULL AND erased_at IS NULL
FOR UPDATE
"""
MARK_ARCHIVED = "UPDATE suspended_tickets SET archived_at = now(), archived_as = $2 WHERE id = $1"
ASK_RECOVERY = """
UPDATE suspended_tickets SET recover_asked_at = now(), recover_tries = recover_tries + 1
WHERE id = ANY(SELECT id FROM suspended_tickets WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE)
"""
_COLUMNS = """id, cause, cause_text, sender, sender_name, subject, ticket_id, suspended_at,
    archived_at, archived_as, recover_asked_at, recover_tries, erased_at"""
SELECT = f"""
SELECT {_COLUMNS} FROM suspended_tickets
ORDER BY suspended_at, id
LIMIT $1
"""  # noqa: S608 - a constant
SELECT_SOME = f"""
SELECT {_COLUMNS} FROM suspended_tickets WHERE id = ANY($1::bigint[])
"""  # noqa: S608 - a constant
# A recovery takes Zendesk a while, in which it is not asked for again.
ASKED_LATELY = "COALESCE(recover_asked_at > now() - interval '1 hour', false)"
_IS_WANTED = """(
    ($1::text IS NULL OR cause = $1)
    AND ($2::bool IS NULL OR (archived_at IS NOT NULL) = $2)
    AND concat_ws(' ', sender, sender_name, subject, cause, cause_text) ILIKE ALL ($3::text[])
    AND ($4::bigint[] IS NULL OR id = ANY ($4))
    AND ($5::timestamptz IS NULL OR first_seen_at <= $5)
)"""
SELECT_PAGE = f"""
SELECT {_COLUMNS} FROM suspended_tickets
WHERE (suspended_at, id) > ($6, $7) AND {_IS_WANTED}
ORDER BY suspended_at, id
LIMIT $8
"""  # noqa: S608 - of constants
COUNT_WANTED = f"""
SELECT count(*) AS all, count(*) FILTER (WHERE {ASKED_LATELY}) AS asked_lately,
    count(*) FILTER (WHERE archived_at IS NOT NULL) AS archived,
    count(*) FILTER (WHERE archived_at IS NULL AND erased_at IS NOT NULL) AS erased
FROM suspended_tickets WHERE {_IS_WANTED}
"""  # noqa: S608 - of constants
SELECT_IDS = f"""
SELECT id FROM suspended_tickets
WHERE {_IS_WANTED} AND CASE WHEN $6 THEN NOT {ASKED_LATELY}
    ELSE archived_at IS NULL AND erased_at IS NULL END
ORDER BY suspended_at, id
"""  # noqa: S608 - of constants
COUNT_ENDANGERED = """
SELECT (suspended_at + $1::interval)::date AS day, count(*) AS mails
FROM suspended_tickets
WHERE archived_at IS NULL AND erased_at IS NULL
    AND suspended_at + $1::interval < now() + $2::interval
    AND (recover_asked_at IS NULL OR recover_asked_at < now() - interval '1 hour')
GROUP BY 1 ORDER BY 1
"""


@attrs.frozen(kw_only=True)
class Wanted:
    """Which suspended mails are meant: those of which all of this is so."""

    cause: str | None = None
    is_archived: bool | None = None
    words: Sequence[str] = ()
    """Each stands in the sender, the subject or the cause."""
    ids: Sequence[int] | None = None
    until: datetime | None = None
    """When it was listed first, at the latest."""

    @property
    def arguments(self) -> tuple[object, ...]:
        """What the statements need."""
        words = list(map(containing, self.words))
        return self.cause, self.is_archived, words, self.ids, self.until


@attrs.frozen
class Counts:
    """How many there are."""

    all: int
    asked_lately: int
    """Zendesk was asked to recover them, and lists them still."""
    archived: int
    erased: int
    """And not archived: they cannot be."""


@attrs.frozen
class Row:
    """One of those that Zendesk listed last."""

    id: int
    cause: str
    cause_text: str
    sender: str
    sender_name: str | None
    subject: str
    ticket_id: int | None
    suspended_at: datetime
    archived_at: datetime | None
    archived_as: UUID | None
    recover_asked_at: datetime | None
    recover_tries: int
    erased_at: datetime | None

    @property
    def deleted_at(self) -> datetime:
        """When Zendesk deletes it."""
        return self.suspended_at + KEPT_BY_ZENDESK

    def days_left(self, now: datetime) -> float:
        """Until then."""
        return max(0.0, (self.deleted_at - now) / timedelta(days=1))


async def see(database: Database, found: Sequence[Suspended]) -> None:
    """Note what Zendesk lists."""
    fields = ("id", "cause", "cause_text", "sender", "sender_name", "subject", "ticket_id")
    unique = list({one.id: one for one in found}.values())
    columns = [[getattr(one, name) for one in unique] for name in (*fields, "suspended_at")]
    await database.execute(SEE, *columns)


async def forget_unseen(database: Database, since: datetime) -> int:
    """Forget what Zendesk listed no longer since a moment, and the copies of what was recovered and
    is an email here. Returns how many are forgotten."""
    gone: int = await database.fetchval(FORGET, since, KEPT_BY_ZENDESK)
    return gone


async def find_all(database: Database, limit: int = LISTED_AT_MOST) -> list[Row]:
    """What Zendesk listed last, that which it deletes first at the head."""
    return [Row(**row) for row in await database.fetch(SELECT, limit)]


async def find_page(
    database: Database, wanted: Wanted, *, limit: int, after: tuple[datetime, int] | None = None
) -> list[Row]:
    """A page of those that are wanted, after that one."""
    place = after or (datetime.min.replace(tzinfo=UTC), 0)
    rows = await database.fetch(SELECT_PAGE, *wanted.arguments, *place, limit)
    return [Row(**row) for row in rows]


async def count_wanted(database: Database, wanted: Wanted) -> Counts:
    """How many are wanted."""
    row = await database.fetchrow(COUNT_WANTED, *wanted.arguments)
    return Counts(**dict(row or {}))


async def find_recoverable(database: Database, wanted: Wanted) -> list[int]:
    """Those of the wanted ones that Zendesk was not asked to recover lately."""
    return [row["id"] for row in await database.fetch(SELECT_IDS, *wanted.arguments, True)]


async def find_unarchived(database: Database, wanted: Wanted) -> list[int]:
    """Those of the wanted ones that are not archived and may be."""
    return [row["id"] for row in await database.fetch(SELECT_IDS, *wanted.arguments, False)]


async def find_some(database: Database, ids: Sequence[int]) -> dict[int, Row]:
    """Some of them by their ids."""
    return {row["id"]: Row(**row) for row in await database.fetch(SELECT_SOME, ids)}


async def count_endangered(database: Database, days: float) -> dict[str, int]:
    """How many are deleted soon and are archived nowhere, by the day of their deletion."""
    rows = await database.fetch(COUNT_ENDANGERED, KEPT_BY_ZENDESK, timedelta(days=days))
    return {row["day"].isoformat(): row["mails"] for row in rows}
