"""How a bulk action is asked for: a preview of what it would do, and its beginning.

The emails that it means are fixed in the moment in which it begins. The pages, the API and the
command are these functions.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import write
from app.bulk import rows
from app.bulk.acting import check_possible, why_not
from app.bulk.rows import Bulk
from app.errors import MailroomError
from app.i18n.formats import number
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.bulk_action import Action
from app.models.fit import fit_text
from app.search.entries import catch_up
from app.settings import Settings

log = structlog.get_logger(__name__)

MOST_EMAILS = 1_000_000
LONGEST_REASON = 500
SHOWN = 10
# Less than the time that a proxy waits for an answer.
LONGEST_SEARCH_SECONDS = 20
BOUND = f"SET LOCAL statement_timeout = '{LONGEST_SEARCH_SECONDS}s'"
TOO_LONG = N_(
    "they were not found in %(seconds)s seconds: narrow it down, as by "
    "received:2026-11-01.. or status:failed"
)

# The oldest first, as it goes through them.
SHOW = """
SELECT id, received_at, from_email, from_name, subject, zendesk_ticket_id, processing_status,
    {why} AS why
FROM incoming_emails AS email WHERE id = ANY($1::uuid[]) ORDER BY received_at, id
"""


class AskingError(MailroomError):
    """Nothing was begun. `field` is what was wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@attrs.frozen(kw_only=True)
class Selection:
    """Which emails are meant."""

    text: str | None
    """The search that finds them, as it was typed; None: they are named."""
    condition: str = attrs.field(repr=False)
    """In SQL."""
    parameters: Sequence[object] = attrs.field(repr=False)
    until: datetime
    """Of those that were stored by then: what comes after the preview is not meant."""

    @classmethod
    def of_ids(cls, ids: Sequence[UUID], until: datetime) -> "Selection":
        """Emails by their ids."""
        return cls(text=None, condition="id = ANY($1::uuid[])", parameters=[list(ids)], until=until)


@attrs.frozen(kw_only=True)
class Preview:
    """What would happen."""

    total: int
    can: int
    """To so many it would be done."""
    cannot: Mapping[str, int]
    """To the others not: how many, by why."""
    first: Sequence[Mapping[str, Any]]
    """The first few that it would come to, with `why` not; None where it can."""


async def preview(
    pool: "asyncpg.Pool[asyncpg.Record]", action: Action, selection: Selection, settings: Settings
) -> Preview:
    """Count what an action would do now, and do nothing.

    Raises:
        AskingError: too many are meant, or they cannot be found in time.
        NotPossibleError: it is possible with no email here.
    """
    check_possible(action, settings)
    why = why_not(action, settings)
    statement = f"""
WITH meant AS MATERIALIZED (
    SELECT id, received_at, {why} AS why FROM incoming_emails AS email WHERE {_of(selection)}
    LIMIT {MOST_EMAILS + 1}
)
SELECT (
    SELECT jsonb_object_agg(COALESCE(why, ''), emails)
    FROM (SELECT why, count(*) AS emails FROM meant GROUP BY why) AS kinds
) AS kinds, ARRAY(SELECT id FROM meant ORDER BY received_at, id LIMIT {SHOWN}) AS first
"""  # noqa: S608 - of constants
    await catch_up(pool)
    try:
        await _make_entries(pool, selection)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(BOUND)
            found = await connection.fetchrow(statement, *selection.parameters, selection.until)
            shown = await connection.fetch(SHOW.format(why=why), found["first"] if found else [])
    except asyncpg.QueryCanceledError as error:
        raise AskingError("search", _(TOO_LONG, seconds=LONGEST_SEARCH_SECONDS)) from error
    kinds: dict[str, int] = json.loads((found and found["kinds"]) or "{}")
    total = sum(kinds.values())
    _see_that_they_are_not_too_many(total)
    can = kinds.pop("", 0)
    return Preview(total=total, can=can, cannot=kinds, first=[dict(row) for row in shown])


async def start(
    pool: "asyncpg.Pool[asyncpg.Record]",
    action_id: UUID,
    action: Action,
    selection: Selection,
    settings: Settings,
    *,
    by: str,
    actor: Actor,
    reason: str | None = None,
    confirmed: int | None = None,
) -> Bulk:
    """Begin a bulk action, for the workers to carry out.

    Args:
        action_id: made by whoever asks: who asks twice with it has asked once.
        actor: who asks, for the audit log.
        reason: why, where the action needs that.
        confirmed: how many emails whoever asks knows that it means; an erasure needs it.

    Raises:
        AskingError: nothing was begun.
        NotPossibleError: it is possible with no email here.
    """
    check_possible(action, settings)
    kept = _check_reason(action, reason)
    statement = f"""
INSERT INTO bulk_action_emails (action, email)
SELECT ${len(selection.parameters) + 2}, id FROM incoming_emails AS email WHERE {_of(selection)}
ORDER BY received_at, id LIMIT {MOST_EMAILS + 1}
"""  # noqa: S608 - of constants
    asked = (action_id, action.value, selection.text, kept, by)
    await catch_up(pool)
    try:
        await _make_entries(pool, selection)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(BOUND)
            if await connection.fetchval(rows.ASK, *asked) is not None:
                tag = await connection.execute(
                    statement, *selection.parameters, selection.until, action_id
                )
                total = int(tag.rpartition(" ")[2])
                _see_that_they_are_not_too_many(total)
                if not total:
                    raise AskingError("search", _("no email is like that: nothing was begun"))
                if action.removes and confirmed != total:
                    raise AskingError(
                        "confirm",
                        _(
                            "to erase them for good, type how many they are, which is %(total)s: "
                            "nothing was begun",
                            total=total,
                        ),
                    )
                await connection.execute(rows.FIX, action_id, total)
                about = {"action": action.value}
                await write(
                    connection, actor, Act.BULK_START, [action_id], count=total, details=about
                )
                log.info("bulk_action_began", action=action.value, id=str(action_id), emails=total)
            begun = await rows.read(connection, action_id)
    except asyncpg.QueryCanceledError as error:
        raise AskingError("search", _(TOO_LONG, seconds=LONGEST_SEARCH_SECONDS)) from error
    if begun is None:
        raise LookupError("its row was read in the transaction that made it")
    return begun


async def _make_entries(pool: "asyncpg.Pool[asyncpg.Record]", selection: Selection) -> None:
    """Have the words of what came lately found."""
    if selection.text:
        await catch_up(pool)


def _of(selection: Selection) -> str:
    return f"({selection.condition}) AND created_at <= ${len(selection.parameters) + 1}"


def _check_reason(action: Action, reason: str | None) -> str | None:
    if not action.needs_reason:
        return None
    text = (reason or "").strip()
    if not text:
        raise AskingError("reason", _("say why, for those who read their stories later"))
    if len(text) > LONGEST_REASON:
        raise AskingError(
            "reason", _("the reason is longer than %(most)s characters", most=LONGEST_REASON)
        )
    if text != fit_text(text):
        raise AskingError("reason", _("the reason holds a character that cannot be kept"))
    return text


def _see_that_they_are_not_too_many(total: int) -> None:
    if total > MOST_EMAILS:
        raise AskingError(
            "search",
            _(
                "they are more than %(most)s, which are meant at most: narrow it down",
                most=number(MOST_EMAILS),
            ),
        )
