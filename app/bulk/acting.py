"""What a bulk action does to some emails, and to which it can do nothing, and why.

Each change is the guarded transition that acts on one email, over many: what changed since the
emails were found is told apart by it, and left alone.
"""

from collections.abc import Collection, Mapping
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.attachments.not_kept import fetch_again_of
from app.database.errors import DATABASE_AWAY
from app.errors import MailroomError
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.jobs.transitions import erasing, operators
from app.models.bulk_action import Action
from app.models.incoming_email import UNREADABLE, ProcessingStatus
from app.retention import erasure_records
from app.settings import Settings
from app.sync.asking import DeliveredEnds
from app.sync.differences import deliver_again
from app.sync.plans import ReconciliationError, delivered_states

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

# Of one statement and its locks. Each email may name a thousand files.
BATCHES = {Action.FETCH: 20, Action.ERASE: 100}
BATCH = 200
# How often what is locked is tried again.
TRIES = 3

GONE = "gone"
BUSY = "busy"
REFUSED = "refused"
"""The database refused it."""

_ENDED = "email.processing_status IN ('completed', 'failed')"
_RETRY = """CASE WHEN email.erased_at IS NOT NULL THEN 'erased'
    WHEN email.processing_status <> 'failed' THEN email.processing_status
    WHEN email.bodies_removed_at IS NOT NULL THEN 'texts_removed' END"""
_SETTLE = """CASE WHEN email.erased_at IS NOT NULL THEN 'erased'
    WHEN email.processing_status <> 'failed' THEN email.processing_status END"""
_FETCH = """CASE WHEN email.erased_at IS NOT NULL THEN 'erased'
    WHEN EXISTS (SELECT FROM email_attachments AS file WHERE file.email = email.id
        AND file.state IN ('failed', 'skipped', 'flagged') AND file.url ~* '^https?://.') THEN NULL
    WHEN EXISTS (SELECT FROM email_attachments AS file WHERE file.email = email.id)
        THEN 'nothing_missing'
    WHEN email.attachment_urls IS NULL OR json_typeof(email.attachment_urls) <> 'array'
        THEN 'no_files'
    WHEN json_array_length(email.attachment_urls) = 0 THEN 'no_files' END"""
_DELIVER = f"""CASE WHEN email.erased_at IS NOT NULL THEN 'erased'
    WHEN NOT {_ENDED} OR email.completed_at IS NULL THEN email.processing_status
    WHEN email.processing_status = 'failed' AND NOT {{failed}} THEN 'failed'
    WHEN email.sync_status = 'not_applicable' AND email.processing_status = 'failed'
        AND email.extracted_data::text LIKE '{{{{"{UNREADABLE}":%' THEN 'unreadable'
    WHEN email.sync_lease_expires_at > now() THEN 'in_delivery'
    WHEN email.sync_status = 'pending' AND email.sync_next_attempt_at <= now() THEN 'due' END"""

SAID = {
    "erased": N_("their content was erased"),
    "texts_removed": N_("their texts were removed because of their age"),
    "received": N_("are received, and wait for a worker"),
    "queued": N_("are queued, and wait for a worker or their next attempt"),
    "processing": N_("are in work"),
    "completed": N_("are completed"),
    "failed": N_("are failed, and that is not delivered here"),
    "nothing_missing": N_("have all their files, or these are being fetched"),
    "no_files": N_("have no files"),
    "unreadable": N_("could not be read, so there is nothing to deliver"),
    "in_delivery": N_("are being delivered right now"),
    "due": N_("are to be delivered already"),
    GONE: N_("are gone"),
    BUSY: N_("were held by somebody else"),
    REFUSED: N_("were refused by the database: its log says why"),
}
WOULD = {
    Action.RETRY: N_("would be queued again"),
    Action.SETTLE: N_("would be completed by hand"),
    Action.DISCARD: N_("would be discarded"),
    Action.FETCH: N_("would have their missing files fetched"),
    Action.DELIVER: N_("would be delivered again"),
    Action.ERASE: N_("would be erased for good"),
}

DONE = {
    Action.RETRY: N_("queued again"),
    Action.DELIVER: N_("to be delivered again"),
    Action.FETCH: N_("of which files are fetched again"),
    Action.SETTLE: N_("completed by hand"),
    Action.DISCARD: N_("discarded"),
    Action.ERASE: N_("erased"),
}


class NotPossibleError(MailroomError):
    """The action is possible with no email here."""


class MarkedTooEarlyError(MailroomError):
    """An email got another key since it was marked for its erasure: it is to be marked again."""


@attrs.frozen(kw_only=True)
class Wish:
    """What is to be done, and whose wish that is."""

    id: UUID
    action: Action
    by: str
    reason: str | None

    @property
    def batch(self) -> int:
        """How many emails are changed at once."""
        return BATCHES.get(self.action, BATCH)


def check_possible(action: Action, settings: Settings) -> None:
    """See that an action can do anything with these settings.

    Raises:
        NotPossibleError: it cannot.
    """
    if action is Action.DELIVER:
        try:
            delivered_states(settings)
        except ReconciliationError as error:
            raise NotPossibleError(str(error)) from error
    if action is Action.FETCH and settings.attachments == "off":
        raise NotPossibleError(_("no files are fetched here: set MAILROOM_ATTACHMENTS"))


def why_not(action: Action, settings: Settings) -> str:
    """Why an action can do nothing with an email, in SQL over a row `email`; NULL where it can."""
    match action:
        case Action.RETRY:
            return _RETRY
        case Action.SETTLE | Action.DISCARD:
            return _SETTLE
        case Action.FETCH:
            return _FETCH
        case Action.DELIVER:
            return _DELIVER.format(failed=str(settings.sync_failed).lower())
        case Action.ERASE:
            return "NULL::text"


async def act(
    connection: Connection, wish: Wish, ids: Collection[UUID], settings: Settings
) -> dict[UUID, str | None]:
    """Do it to some emails, in a transaction of the caller's.

    Returns:
        For each why it was not done; None where it was.

    Raises:
        MarkedTooEarlyError: nothing was done.
    """
    try:
        async with connection.transaction():
            return await _act(connection, wish, ids, settings)
    except DATABASE_AWAY:
        raise
    except asyncpg.PostgresError:
        if len(ids) == 1:
            return dict.fromkeys(ids, REFUSED)
    ends: dict[UUID, str | None] = {}
    for one in ids:
        ends |= await act(connection, wish, [one], settings)
    return ends


async def _act(
    connection: Connection, wish: Wish, ids: Collection[UUID], settings: Settings
) -> dict[UUID, str | None]:
    ends: dict[UUID, str | None] = dict.fromkeys(ids)
    left = list(ids)
    for _try in range(TRIES):
        done = set(await _change(connection, wish, left, settings))
        why = await _find_why(connection, wish, [one for one in left if one not in done], settings)
        ends |= {**dict.fromkeys(done), **why}
        left = [one for one, told in why.items() if told == BUSY]
        if not left:
            break
    return ends


async def _change(
    connection: Connection, wish: Wish, ids: Collection[UUID], settings: Settings
) -> Collection[UUID]:
    """Returns which were changed."""
    match wish.action:
        case Action.RETRY:
            return await operators.retry_many(connection, ids, by=wish.by)
        case Action.SETTLE | Action.DISCARD:
            return await operators.settle_many(
                connection,
                ids,
                by=wish.by,
                reason=wish.reason or "",
                discard=wish.action is Action.DISCARD,
                delivered=DeliveredEnds.from_settings(settings),
            )
        case Action.FETCH:
            most = settings.attachment_max_count
            return await fetch_again_of(connection, ids, most=most)
        case Action.DELIVER:
            states = _delivered(settings)
            return await deliver_again(connection, ids, states, by=wish.by)
        case Action.ERASE:
            return await _erase(connection, wish, ids)


def _delivered(settings: Settings) -> Collection[ProcessingStatus]:
    """None where the worker has other settings than who asked for it: then nothing is done."""
    return delivered_states(settings) if settings.delivers else ()


async def _erase(connection: Connection, wish: Wish, ids: Collection[UUID]) -> Collection[UUID]:
    rows = await connection.fetch(
        "SELECT id FROM incoming_emails WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE", ids
    )
    there = [row["id"] for row in rows]
    if there:
        erased = await erasing.remove(connection, there, wish.id)
        if erased is None:
            raise MarkedTooEarlyError("an email has another key by now: it is marked again")
        await erasure_records.add(connection, wish.id, erased)
    return there


async def _find_why(
    connection: Connection, wish: Wish, ids: Collection[UUID], settings: Settings
) -> Mapping[UUID, str]:
    if not ids:
        return {}
    why = why_not(wish.action, settings)
    rows = await connection.fetch(
        f"SELECT id, {why} AS why FROM incoming_emails AS email"  # noqa: S608 - of constants
        " WHERE id = ANY($1::uuid[])",
        ids,
    )
    told = {row["id"]: row["why"] or BUSY for row in rows}
    return {one: told.get(one, GONE) for one in ids}
