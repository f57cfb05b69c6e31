"""What the commands of the quarantine share: which webhooks are meant, and how they are read."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import click

from app.audit.actors import Actor
from app.audit.acts import Act
from app.errors import MailroomError
from app.intake.refusals import Refusal, Summary, Wanted, discard, find_refusal, refusals
from app.models.quarantined_webhook import RefusalReason
from app.retention import drafts
from app.settings import get_settings

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

REASON = click.option(
    "--reason", type=click.Choice([reason.value for reason in RefusalReason]), help="Only these."
)
ALL = click.option("--all", "all_of_them", is_flag=True, help="All of them.")
IDS = click.argument("ids", type=click.UUID, nargs=-1)


class SelectionError(MailroomError):
    """Which webhooks are meant is not clear."""


def to_reason(reason: str | None) -> RefusalReason | None:
    return RefusalReason(reason) if reason else None


def check_selection(ids: Sequence[UUID], all_of_them: bool, reason: str | None) -> None:
    if bool(ids) == all_of_them:
        raise SelectionError("say which: ids, or --all (with --reason, all of that reason)")
    if reason and ids:
        raise SelectionError("--reason goes with --all, not with ids")


async def selected(
    pool: Pool, ids: Sequence[UUID], reason: RefusalReason | None
) -> AsyncIterator[list[Refusal]]:
    if ids:
        each = list(dict.fromkeys(ids))
        # Where one is wrong, nothing is done.
        for refusal_id in each:
            await find(pool, refusal_id)
        for refusal_id in each:
            yield [await find(pool, refusal_id)]
    else:
        async for page in refusals(pool, Wanted(reason=reason)):
            yield page


async def find(pool: Pool, refusal_id: UUID) -> Refusal:
    refusal = await find_refusal(pool, refusal_id)
    if refusal is None:
        raise SelectionError(f"there is no {refusal_id} in the quarantine")
    return refusal


def draft_of(refusal_id: UUID) -> Path:
    """Where the text lies while it is edited, for its owner alone: it is an email."""
    return drafts.draft_of(get_settings().home, refusal_id)


async def discard_with_drafts(pool: Pool, ids: Sequence[UUID], actor: Actor, act: Act) -> None:
    """Delete refused webhooks, and what was written of them here."""
    await discard(pool, ids, actor=actor, act=act)
    for refusal_id in ids:
        draft_of(refusal_id).unlink(missing_ok=True)


def to_json(refusal: Refusal | Summary) -> str:
    return json.dumps(
        {
            "id": str(refusal.id),
            "received_at": refusal.received_at.isoformat(),
            "reason": refusal.reason,
            "detail": refusal.detail,
            "remote_address": refusal.remote_address,
            "size": refusal.size,
            "is_signed": refusal.is_signed,
        }
    )
