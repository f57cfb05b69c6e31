"""What operators and rules do about suspended mail: it is kept in the quarantine, or made a ticket
by Zendesk, whose email then comes as any other does."""

import json
import time
from collections.abc import Sequence
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

import asyncpg
import attrs
import structlog

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import in_transaction, write
from app.http.host_names import Origin
from app.intake.quarantine import Quarantine
from app.intake.refusals import Refusal
from app.models.audit_entry import Result
from app.models.fit import fit_json
from app.models.quarantined_webhook import RefusalReason
from app.settings import Settings
from app.zendesk.client import ZendeskClient
from app.zendesk.items import as_object
from app.zendesk.suspended import rows
from app.zendesk.suspended.api import RECOVERED_AT_ONCE, Suspended, get_suspended, recover

log = structlog.get_logger(__name__)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# In the place of a sender's address: they share the room that one address may take, so that no
# flood of spam takes the place of webhooks.
WHERE_FROM = "zendesk: suspended"


async def archive(
    settings: Settings,
    pool: Pool,
    quarantine: Quarantine,
    found: Suspended,
    *,
    actor: Actor | None = None,
) -> bool | None:
    """Keep one in the quarantine, unless it is kept or erased.

    Returns:
        Whether it is kept now; None where the quarantine has no room for it.

    Raises:
        Exception: the database is away.
    """
    refusal = _to_refusal(settings, found)
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval(rows.HOLD_UNARCHIVED, found.id):
            return False
        if not await quarantine.keep(connection, [refusal]):
            return None
        await connection.execute(rows.MARK_ARCHIVED, found.id, refusal.id)
        if actor is not None:
            details = {"refusal": str(refusal.id)}
            await write(connection, actor, Act.SUSPENDED_ARCHIVE, [found.id], details=details)
    log.info("suspended_archived", suspended_id=found.id, refusal_id=str(refusal.id))
    return True


async def recover_all(
    client: ZendeskClient, pool: Pool, ids: Sequence[int], *, by: str, actor: Actor | None = None
) -> tuple[int, set[int]]:
    """Have Zendesk make tickets of them; the emails come by themselves.

    Args:
        by: who wants it, for the log.
        actor: the same for the audit log; None: a rule does.

    Returns:
        How many Zendesk took, and the ids of those that it could not.

    Raises:
        ZendeskError: the class says why; those before were taken.
        Exception: the database is away.
    """
    failed: set[int] = set()
    for begin in range(0, len(ids), RECOVERED_AT_ONCE):
        some = ids[begin : begin + RECOVERED_AT_ONCE]
        async with in_transaction(pool) as connection:
            await connection.execute(rows.ASK_RECOVERY, some)
            if actor is not None:
                begun = Result.BEGUN
                await write(connection, actor, Act.SUSPENDED_RECOVER, some, result=begun)
        refused = await recover(client, some)
        failed |= refused & set(some)
        taken = [each for each in some if each not in refused]
        if actor is not None and taken:
            await write(pool, actor, Act.SUSPENDED_RECOVER, taken)
        log.info("suspended_recovered", suspended_ids=taken, failed=len(refused), by=by)
    return len(ids) - len(failed), failed


@attrs.define
class Archived:
    """What became of several."""

    kept: int = 0
    without_room: int = 0
    gone: int = 0
    """Zendesk has them no longer."""
    left: int = 0
    """There was no time for them."""


async def archive_all(
    settings: Settings,
    pool: Pool,
    client: ZendeskClient,
    ids: Sequence[int],
    *,
    actor: Actor,
    seconds: float | None = None,
) -> Archived:
    """Keep several in the quarantine, one after the other.

    Args:
        seconds: begin with no further one after so long.

    Raises:
        ZendeskError: the class says why; those before are kept.
        Exception: the database is away.
    """
    done = Archived()
    deadline = None if seconds is None else time.monotonic() + seconds
    quarantine = Quarantine(settings, pool)
    try:
        for number, each in enumerate(ids):
            if deadline is not None and time.monotonic() > deadline:
                done.left = len(ids) - number
                break
            found = await get_suspended(client, each)
            if found is None:
                done.gone += 1
                continue
            is_kept = await archive(settings, pool, quarantine, found, actor=actor)
            done.kept += is_kept is True
            done.without_room += is_kept is None
    finally:
        await quarantine.close()
    return done


def _to_refusal(settings: Settings, found: Suspended) -> Refusal:
    body = json.dumps(fit_json(_payload(found)), ensure_ascii=False).encode("utf-8", "replace")
    return Refusal(
        id=_id_of(settings, found.id),
        reason=RefusalReason.SUSPENDED,
        detail=(
            f"Zendesk suspended it as {found.cause} ({found.cause_text or 'no words'}), number "
            f"{found.id}, and deletes it on {found.deleted_at:%Y-%m-%d}"
        ),
        remote_address=WHERE_FROM,
        headers={"content-type": "application/json"},
        body=body,
    )


def _id_of(settings: Settings, suspended_id: int) -> UUID:
    """The same for the same one of an account, whoever keeps it."""
    host = Origin.parse(settings.zendesk_address).host
    return uuid5(NAMESPACE_URL, f"https://{host}/suspended_tickets/{suspended_id}")


def _payload(found: Suspended) -> dict[str, Any]:
    """As a trigger would have sent it, with all else that Zendesk said beside it."""
    files = found.raw.get("attachments")
    rest = {k: v for k, v in found.raw.items() if k not in ("content", "attachments")}
    ticket_id = found.ticket_id if found.ticket_id is not None else f"suspended-{found.id}"
    return {
        "ticket_id": str(ticket_id),
        "from_email": found.sender,
        "from_name": found.sender_name,
        "subject": found.subject,
        "body_text": found.raw.get("content"),
        "received_at": found.suspended_at.isoformat(),
        "attachments": [_file(file) for file in files] if isinstance(files, list) else [],
        "suspended_ticket": rest,
    }


def _file(raw: Any) -> dict[str, Any]:
    file = as_object(raw)
    return {
        "url": file.get("content_url"),
        "filename": file.get("file_name"),
        "content_type": file.get("content_type"),
        "size": file.get("size"),
    }
