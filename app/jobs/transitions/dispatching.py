"""received -> queued: what a Dispatcher takes for the broker, gives back unsent, or lets wait for
its files."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from app.attachments.enrolling import enrolled
from app.attachments.transitions import IS_WAITED_FOR
from app.jobs.transitions.common import (
    DUE_AT,
    IS_PAUSED,
    WITH_MESSAGE,
    WITHOUT_MESSAGE,
    Database,
    in_state_since,
)


@attrs.frozen
class Queued:
    """An email whose message has to go to the broker."""

    email_id: UUID
    queued_at: datetime | None
    """None where it waits for its files: then it has no message so far."""
    is_fresh: bool
    """Whether it was `received` until now."""
    received_at: datetime
    oldest_message: datetime | None
    """When the oldest was queued that waited in the broker before."""
    waited: int
    """How many waited there before."""


@attrs.frozen
class Since:
    """From where a Dispatcher looks; None: from the beginning."""

    received_at: datetime | None = None
    """For fresh emails."""

    queued_at: datetime | None = None
    """For those that wait in the broker."""


THE_BEGINNING = Since()


@attrs.frozen
class Files:
    """What is done about the files of an email when it is queued."""

    most: int
    """Files of one email that are fetched."""
    wait: timedelta | None
    """How long its handler waits for them at most; None: not at all."""


SINCE = "COALESCE($4::timestamptz, '-infinity')"

# Both kinds share the room that the broker has: the fresh ones, and those that are sent again. Each
# may have its half, and what it does not need is the other's. The depth bounds what waits in the
# broker, so that order of receipt is kept by the database and a lost message is noticed soon. Of
# those sent again, what was brought back goes first, then retries as they fell due.
#
# SKIP LOCKED keeps Dispatchers apart. What is taken is MATERIALIZED: as a plain subquery of the
# UPDATE it may be run once for each row, each time it passes over what the UPDATE has changed
# already, and so takes more than its LIMIT. Which plan PostgreSQL prefers depends on its
# statistics, which may be those of a table that was full and is drained by now. Three habits leave
# it no way through the whole table: a state is asked for by BETWEEN, ordered by state and time,
# which only the index on both can serve; an UPDATE finds its rows by an array of ids; and what
# bounds a LIMIT is worked out first.
#
# $4 and $5 spare it the dead entries of the indexes, of what was taken since the last vacuum: what
# is left begins there, as far as the Dispatcher knows. While a transaction is open elsewhere, none
# of them can be removed.
#
# A fresh email with files gets their rows in the same statement, and no message until they are
# there or its time is up: it is `queued` like one whose retry is due later. Of emails that name
# very many, no more are taken at once than the statement has time for, and always one.
#
# Losing this commit in a crash of PostgreSQL costs little (the emails are fresh again, and a
# message that was sent for one finds it so, or done), so it need not wait for the disk.
#
# The order is given here, because an UPDATE returns its rows in any, and so that nothing can fail
# once it has committed: both kinds by turns. No '-infinity' may leave PostgreSQL, since asyncpg
# makes of it a time that compares with no other.
FILES_AT_ONCE = 2_000
COUNT_FILES = """CASE
    WHEN attachment_urls IS NULL OR $7::int IS NULL THEN 0
    WHEN json_typeof(attachment_urls) <> 'array' THEN 0
    ELSE json_array_length(attachment_urls) END"""
QUEUE = f"""
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
waiting AS MATERIALIZED (
    SELECT count(*) AS messages, min(queued_at) AS oldest FROM (
        SELECT queued_at FROM incoming_emails
        WHERE {WITH_MESSAGE} AND queued_at >= COALESCE($5::timestamptz, '-infinity')
        ORDER BY queued_at LIMIT $2
    ) AS counted
),
room AS MATERIALIZED (
    SELECT CASE WHEN {IS_PAUSED} THEN 0 ELSE LEAST($1, $2 - messages) END AS places
    FROM waiting, relaxed
),
needed AS MATERIALIZED (
    SELECT count(*) AS places FROM (
        SELECT 1 FROM incoming_emails WHERE {in_state_since("received", SINCE)}
        LIMIT (SELECT (places + $3::int) / 2 FROM room)
    ) AS counted
),
again AS MATERIALIZED (
    SELECT id FROM incoming_emails
    WHERE {WITHOUT_MESSAGE} AND {DUE_AT} <= now()
    ORDER BY {DUE_AT}, received_at
    LIMIT (SELECT room.places - needed.places FROM room, needed)
    FOR UPDATE SKIP LOCKED
),
locked AS MATERIALIZED (
    SELECT id, received_at, {COUNT_FILES} AS files
    FROM incoming_emails WHERE {in_state_since("received", SINCE)}
    LIMIT (SELECT places FROM room) - (SELECT count(*) FROM again)
    FOR UPDATE SKIP LOCKED
),
fresh AS MATERIALIZED (
    SELECT id, files > 0 AS has_files, files > 0 AND $6::interval IS NOT NULL AS waits
    FROM (
        SELECT id, files, sum(files) OVER (ORDER BY received_at, id) - files AS before FROM locked
    ) AS counted
    WHERE before < {FILES_AT_ONCE}
),
taken AS (
    UPDATE incoming_emails
    SET processing_status = 'queued', updated_at = now(),
        queued_at = CASE WHEN id = ANY (ARRAY(SELECT id FROM fresh WHERE waits)) THEN NULL
            ELSE now() END,
        next_attempt_at = CASE WHEN id = ANY (ARRAY(SELECT id FROM fresh WHERE waits))
            THEN now() + $6 ELSE next_attempt_at END
    WHERE id = ANY (ARRAY(SELECT id FROM again UNION ALL SELECT id FROM fresh))
    RETURNING id, queued_at, id = ANY (ARRAY(SELECT id FROM fresh)) AS is_fresh,
        next_attempt_at, received_at,
        CASE WHEN id = ANY (ARRAY(SELECT id FROM fresh WHERE has_files)) THEN attachment_urls
            END AS files
),
with_files AS MATERIALIZED (SELECT id, files FROM taken WHERE files IS NOT NULL),
rows_of_files AS ({enrolled("with_files", "$7::int")})
SELECT id, queued_at, is_fresh, received_at, oldest AS oldest_message, messages AS waited
FROM taken, waiting
ORDER BY row_number() OVER (
    PARTITION BY is_fresh ORDER BY CASE WHEN NOT is_fresh THEN {DUE_AT} END, received_at
), NOT is_fresh
"""  # noqa: S608 - a constant

# Counted as above, and so found.
HAS_NO_ROOM = f"""
SELECT count(*) > $1 AND NOT {IS_PAUSED} FROM (
    SELECT 1 FROM incoming_emails
    WHERE {WITH_MESSAGE} AND queued_at >= COALESCE($2::timestamptz, '-infinity')
    ORDER BY queued_at LIMIT $1 + 1
) AS counted
"""  # noqa: S608 - a constant

UNQUEUE = """
UPDATE incoming_emails AS email
SET processing_status = CASE WHEN unsent.is_fresh THEN 'received' ELSE 'queued' END,
    queued_at = NULL, updated_at = now()
FROM unnest($1::uuid[], $2::timestamptz[], $3::boolean[]) AS unsent (id, queued_at, is_fresh)
WHERE email.id = ANY (ARRAY(SELECT unnest($1::uuid[]))) AND email.id = unsent.id
    AND (email.processing_status = 'queued' AND email.queued_at = unsent.queued_at) IS TRUE
RETURNING email.id
"""


# An email that no worker took so far, and that is due later, waits for its files and nothing else.
WAITS = f"{WITHOUT_MESSAGE} AND claims = 0 AND {DUE_AT} > now()"
FOR_NOTHING = f"""NOT EXISTS (
            SELECT FROM email_attachments AS file
            WHERE file.email = incoming_emails.id AND {IS_WAITED_FOR}
        )"""


def _end_wait(which: str) -> str:
    """Due from now on, and not before what was due already. What a crash takes of it waits for its
    files as long as it was to, or is found by `end_waits`."""
    return f"""
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
held AS MATERIALIZED (SELECT id FROM incoming_emails WHERE {which})
UPDATE incoming_emails SET next_attempt_at = now(), updated_at = now()
FROM relaxed
WHERE id = ANY (ARRAY(SELECT id FROM held))
RETURNING id, pg_notify('mailroom_received', '')
"""  # noqa: S608 - a constant


END_WAIT = _end_wait(
    f"id = ANY($1::uuid[]) AND ({WAITS}) IS TRUE AND {FOR_NOTHING} ORDER BY id FOR UPDATE"
)
END_WAITS = _end_wait(
    f"{WAITS} AND {FOR_NOTHING} ORDER BY {DUE_AT}, received_at LIMIT $1 FOR UPDATE SKIP LOCKED"
)


async def queue(
    database: Database,
    *,
    limit: int,
    depth: int,
    odd_to_fresh: bool = True,
    since: Since = THE_BEGINNING,
    files: Files | None = None,
) -> list[Queued]:
    """received -> queued, the oldest first; queued -> queued for those that were brought back, and
    those whose next attempt is due, as they fell due. Half each, as far as there are so many, while
    fewer than `depth` messages wait in the broker.

    Args:
        odd_to_fresh: the half of one place is that of the fresh ones.
        since: what is older is not looked for.
        files: what is done about those of fresh emails; None: nothing.

    Returns:
        The emails whose messages have to go to the broker, both kinds by turns, and those that wait
        for their files first.
    """
    rows = await database.fetch(
        QUEUE,
        limit,
        depth,
        int(odd_to_fresh),
        since.received_at,
        since.queued_at,
        files and files.wait,
        files and files.most,
    )
    return [Queued(*row) for row in rows]


async def has_no_room(database: Database, *, room: int, depth: int, since: Since) -> bool:
    """Whether fewer than `room` messages more may wait in the broker, and processing goes on."""
    full: bool = await database.fetchval(HAS_NO_ROOM, depth - room, since.queued_at)
    return full


async def unqueue(database: Database, unsent: Sequence[Queued]) -> list[UUID]:
    """queued -> received, queued: as it was before `queue`, where the message was not sent and
    nobody has taken the email since.

    Returns:
        What was changed.
    """
    rows = await database.fetch(
        UNQUEUE,
        [queued.email_id for queued in unsent],
        [queued.queued_at for queued in unsent],
        [queued.is_fresh for queued in unsent],
    )
    return [row["id"] for row in rows]


async def end_wait(database: Database, email_ids: Collection[UUID]) -> list[UUID]:
    """queued -> queued, due now, where an email waited for its files and none of them is worth that
    any more.

    Returns:
        What was changed.
    """
    rows = await database.fetch(END_WAIT, email_ids)
    return [row["id"] for row in rows]


async def end_waits(database: Database, *, limit: int) -> list[UUID]:
    """The same for whichever email waits for nothing: its worker vanished between the end of the
    last file and `end_wait`.

    Returns:
        What was changed.
    """
    rows = await database.fetch(END_WAITS, limit)
    return [row["id"] for row in rows]
