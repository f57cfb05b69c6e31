"""Comments of Zendesk's tickets that are emails, and that no webhook brought.

A webhook may come late after all, before, after or at the same moment as its comment is stored.
So a ticket is set down as one in question first, and the webhooks that are being written meanwhile
are waited for; from then on whoever writes an email of the ticket does so under the ticket's lock,
as what is missing is stored here (`app.intake.late_webhooks`).
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.database.group_commit import ROW_ERRORS
from app.errors import MailroomError
from app.intake.doors import and_told
from app.intake.email_row import EmailRow, make_row
from app.intake.erasure_rules import erasures_of, is_erased
from app.intake.json_body import read_json_object
from app.intake.late_webhooks import LOCK_TICKETS
from app.intake.payload import check_payload
from app.intake.refused import RefusedError
from app.intake.row_writer import Connection
from app.intake.sameness import (
    CLOCKS_DIFFER,
    ZENDESK_DIFFERS,
    Files,
    Told,
    essences,
    match,
    match_erased,
)
from app.intake.writer import insert_anyway
from app.jobs.transitions.erasing import settle_writers
from app.models.erasure import ARRIVED
from app.models.fit import read_json, to_fit_json
from app.models.incoming_email import Origin
from app.telemetry.request_id import uuid7

log = structlog.get_logger(__name__)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# Stands for the sender while an email without one is checked; it is never stored.
_NOBODY = "nobody@invalid"

# What nobody could read has no text to be compared.
SELECT_EMAILS = """
SELECT id, created_at, signed_at, zendesk_comment_id, raw_body_text, raw_body_html, attachment_urls,
    erased_at IS NOT NULL OR raw_payload IS NULL AS is_emptied
FROM incoming_emails
WHERE zendesk_ticket_id = $1 AND (created_at >= $2 OR zendesk_comment_id = ANY($3::text[]))
    AND NOT (processing_status = 'failed' AND extracted_data::text LIKE '{"unreadable": %')
"""
# By bytes, as ix_tombstones_arrived has them: by the database's own collation what begins with the
# same characters need not stand together, so no index on that finds it.
SELECT_ERASED = f"""
SELECT key FROM tombstones
WHERE key LIKE '{ARRIVED} %' AND key ~>=~ ($1 || ' ') AND key ~<~ ($1 || '!')
"""  # noqa: S608 - a constant
NAME_COMMENTS = """
UPDATE incoming_emails AS email SET zendesk_comment_id = named.comment
FROM (
    SELECT email.id, comment
    FROM unnest($1::uuid[], $2::text[]) AS listed (id, comment)
    JOIN incoming_emails AS email ON email.id = listed.id
    WHERE email.zendesk_comment_id IS NULL
    ORDER BY email.id
    FOR UPDATE OF email
) AS named
WHERE email.id = named.id AND email.zendesk_comment_id IS NULL
"""
SET_IN_QUESTION = """
INSERT INTO zendesk_tickets_in_question (ticket_id) VALUES ($1)
ON CONFLICT (ticket_id) DO UPDATE SET created_at = now()
"""


@attrs.frozen(kw_only=True)
class Comment:
    """A comment of a ticket, as Zendesk's API tells it."""

    id: str
    ticket_id: str
    written_at: datetime
    texts: tuple[str | None, ...]
    """Its text in each form that there is."""
    is_email: bool
    """Else it is there so that its text is not taken for that of an email."""
    subject: str | None = None
    from_email: str | None = None
    from_name: str | None = None
    body_text: str | None = None
    body_html: str | None = None
    files: Sequence[dict[str, Any]] = ()
    """As the API shows attachments."""
    record: Any = None
    """What the API said, which is kept with the email."""

    @property
    def told(self) -> Told:
        return Told(self.id, essences(self.texts), self.written_at, files=Files.of(self.files))


class CommentsReadBeforeError(MailroomError):
    """An email came since the comments were read, and may be one that is not among them."""


@attrs.frozen
class Missing:
    """What was not here of a ticket."""

    ids: list[str]
    """Of the comments; they are stored now, unless nothing was to be changed."""
    refused: list[Comment] = attrs.field(factory=list)
    """Those that cannot be stored."""


async def admit_missing(
    pool: Pool,
    comments: Sequence[Comment],
    *,
    hosts: frozenset[str],
    read_at: datetime | None = None,
    dry_run: bool = False,
    clock_ahead: timedelta = timedelta(0),
) -> Missing:
    """Store the emails among a ticket's comments that are not here.

    Args:
        comments: of one ticket, all that were written since some moment.
        hosts: the account's, by which images in a text are known as files.
        read_at: when they were read, by the database's clock; None: whatever came since is taken
            for one of them.
        dry_run: leave all as it is.
        clock_ahead: by how much our clock is before that of the comments.

    Raises:
        CommentsReadBeforeError: they have to be read again; nothing was changed.
        StillWritingError: somebody writes an email and does not end; nothing was stored.
    """
    if not any(comment.is_email for comment in comments):
        return Missing([])
    told = {
        comment.id: attrs.evolve(comment.told, at=comment.written_at + clock_ahead)
        for comment in comments
    }
    async with pool.acquire() as connection:
        missing = await _compare(
            connection, comments, told, clock_ahead, read_at, names=not dry_run
        )
    if not missing or dry_run:
        return Missing([comment.id for comment in missing])
    ticket_id = comments[0].ticket_id
    await pool.execute(SET_IN_QUESTION, ticket_id)
    await settle_writers(pool)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_TICKETS, [ticket_id])
        missing = await _compare(connection, comments, told, clock_ahead, read_at, names=True)
        rows, refused = _rows(missing, hosts)
        erasures = await erasures_of(connection, [ticket_id])
        rows = [row for row in rows if not is_erased(erasures, row)]
        stored, not_taken = await _store(connection, rows)
    return Missing(
        [str(row.zendesk_comment_id) for row in rows if row.id in stored],
        [*refused, *(comment for comment in missing if comment.id in not_taken)],
    )


def _rows(
    comments: Sequence[Comment], hosts: frozenset[str]
) -> tuple[list[EmailRow], list[Comment]]:
    rows, refused = [], []
    for comment in comments:
        try:
            rows.append(to_row(comment, hosts))
        except RefusedError as error:
            log.error("comment_refused", comment=comment.id, error=type(error).__name__)
            refused.append(comment)
    return rows, refused


async def _store(
    connection: Connection, rows: Sequence[EmailRow]
) -> tuple[set[UUID], set[str | None]]:
    """Store rows, each alone where the database refuses one. Returns ids of those that are stored,
    and the comments of those that it refuses."""
    if not rows:
        return set(), set()
    try:
        async with connection.transaction():
            return await insert_anyway(connection, rows), set()
    except ROW_ERRORS:
        stored: set[UUID] = set()
        refused: set[str | None] = set()
        for row in rows:
            try:
                async with connection.transaction():
                    stored |= await insert_anyway(connection, [row])
            except ROW_ERRORS as error:
                log.error(
                    "comment_refused", comment=row.zendesk_comment_id, error=type(error).__name__
                )
                refused.add(row.zendesk_comment_id)
        return stored, refused


async def _compare(
    connection: Connection,
    comments: Sequence[Comment],
    told: dict[str, Told],
    clock_ahead: timedelta,
    read_at: datetime | None,
    *,
    names: bool,
) -> list[Comment]:
    """The emails among comments that are not here; those that are get the comment's id."""
    ticket_id = comments[0].ticket_id
    since = min(one.at for one in told.values()) - CLOCKS_DIFFER
    records = await connection.fetch(SELECT_EMAILS, ticket_id, since, list(told))
    here = [_told(record, clock_ahead) for record in records if not record["is_emptied"]]
    # What was erased, or is old, has no text; it knows its comment, or the time at which it came.
    emptied = [record for record in records if record["is_emptied"]]
    matched = match(here, list(told.values()))
    if read_at is not None and any(
        record["created_at"] > read_at
        and record["zendesk_comment_id"] is None
        and str(record["id"]) in matched
        for record in records
    ):
        raise CommentsReadBeforeError("an email came meanwhile")
    known = {*matched.values(), *(record["zendesk_comment_id"] for record in emptied)}
    left = [c for c in comments if c.is_email and c.id not in known]
    if left:
        erased = [r["created_at"] for r in emptied if r["zendesk_comment_id"] is None]
        erased += await _erased(connection, ticket_id)
        gone = match_erased(erased, [told[comment.id] for comment in left])
        left = [comment for comment in left if comment.id not in gone]
    if names:
        await _name(connection, here, matched)
    return left


async def _name(connection: Connection, here: Collection[Told], matched: dict[str, str]) -> None:
    new = {e.id: matched[e.id] for e in here if e.comment_id is None and e.id in matched}
    if new:
        await connection.execute(NAME_COMMENTS, [UUID(one) for one in new], [*new.values()])


async def _erased(connection: Connection, ticket_id: str) -> list[datetime]:
    """When the emails of a ticket came that were erased since."""
    rows = await connection.fetch(SELECT_ERASED, f"{ARRIVED} {ticket_id}")
    keys = [row["key"] for row in rows]
    return [datetime.fromtimestamp(int(key.rpartition(" ")[2]), UTC) for key in keys]


def _told(record: asyncpg.Record, clock_ahead: timedelta) -> Told:
    told = Told(
        str(record["id"]),
        essences((record["raw_body_text"], record["raw_body_html"])),
        record["created_at"],
        record["zendesk_comment_id"],
        Files.of(read_json(record["attachment_urls"])),
    )
    if (signed_at := record["signed_at"]) is None:
        return told
    # What was admitted late was written then.
    return attrs.evolve(told, at=signed_at + clock_ahead, may_be_early=ZENDESK_DIFFERS)


def to_row(comment: Comment, hosts: frozenset[str]) -> EmailRow:
    """The row of an email that is made of a comment."""
    fields = {
        "ticket_id": comment.ticket_id,
        "from_email": comment.from_email or _NOBODY,
        "from_name": comment.from_name,
        "subject": comment.subject,
        "body_html": comment.body_html,
        "body_text": comment.body_text,
        "received_at": comment.written_at.isoformat(),
        "attachments": list(comment.files),
    }
    payload = check_payload(fields)
    kept = {**fields, "from_email": comment.from_email or "", "zendesk_comment": comment.record}
    body = to_fit_json(kept).encode()
    row = make_row(
        body,
        read_json_object(body),
        payload,
        email_id=uuid7(),
        invocation_id=None,
        signature=None,
        now=datetime.now(UTC),
        hosts=hosts,
    )
    told = [f"no webhook brought it: it was made from the comment {comment.id} of its ticket"]
    if comment.from_email is None:
        told.append("its sender is not known: Zendesk's API names no address")
    return attrs.evolve(
        row,
        from_email=row.from_email if comment.from_email else "",
        # A late webhook puts its own in its place.
        idempotency_key=f"comment:{comment.id}",
        zendesk_comment_id=comment.id,
        sent_at=comment.written_at,
        origin=Origin.BACKFILL.value,
        attempt_errors=and_told(row, *told),
    )
