"""`mailroom suspended`."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from app.audit.actors import Actor
from app.cli.acting import command_actor
from app.cli.database_access import run_with_pool
from app.cli.printing import say, say_lines
from app.errors import MailroomError
from app.settings import Settings, get_settings
from app.zendesk.client import ZendeskClient
from app.zendesk.items import as_object
from app.zendesk.suspended import rows
from app.zendesk.suspended.api import Suspended, get_suspended
from app.zendesk.suspended.keeping import Archived, archive_all, recover_all
from app.zendesk.suspended.rows import Pool, Row
from app.zendesk.suspended.watch import refresh

# More than an account has in 14 days.
MOST_SUSPENDED = 1_000_000

IDS = click.argument("ids", type=click.IntRange(min=0), nargs=-1)
ALL = click.option("--all", "all_of_them", is_flag=True, help="All of them.")
CAUSE = click.option("--cause", help="With --all, only those of this cause, such as `spam`.")


class SuspendedError(MailroomError):
    """What is asked for cannot be done."""


@click.group()
def suspended() -> None:
    """Look after mail that Zendesk suspended: it became no ticket, and is deleted after 14 days."""


@suspended.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, an object a line.")
def list_all(as_json: bool) -> None:
    """List what is suspended now, that which Zendesk deletes first at the head."""
    settings = _settings()
    found = run_with_pool(lambda pool: _list(pool, settings))
    now = datetime.now(UTC)
    for row in found:
        say(json.dumps(_as_object(row, now), ensure_ascii=False) if as_json else _line(row, now))
    if not as_json:
        kept = sum(row.archived_at is not None for row in found)
        say(f"{len(found)} are suspended, {kept} of them are kept in the quarantine.")


@suspended.command()
@click.argument("suspended_id", metavar="ID", type=click.IntRange(min=0))
def show(suspended_id: int) -> None:
    """Show the suspended mail ID with its text."""
    settings = _settings()
    found = run_with_pool(lambda _: _get(settings, suspended_id))
    say(f"from: {found.sender_name or ''} <{found.sender}>")
    say(f"subject: {found.subject}")
    say(f"suspended: {found.suspended_at.isoformat(timespec='seconds')}, {_why(found)}")
    say(f"deleted by Zendesk: {found.deleted_at.isoformat(timespec='seconds')}")
    for file in found.raw.get("attachments") or ():
        say(f"file: {as_object(file).get('file_name')}, {as_object(file).get('size')} bytes")
    say("")
    say_lines(str(found.raw.get("content") or ""))


@suspended.command()
@IDS
@ALL
@CAUSE
def recover(ids: tuple[int, ...], all_of_them: bool, cause: str | None) -> None:
    """Have Zendesk make tickets of suspended mail; each email then comes as any other does.

    Exits with 0 if Zendesk took all of them.
    """
    settings = _settings()
    _check(ids, all_of_them, cause)
    actor = command_actor()
    done, failed = run_with_pool(lambda pool: _recover(pool, settings, ids, cause, actor))
    say(f"{done} recovered" + (f", {len(failed)} not: {_some(failed)}" if failed else ""))
    raise SystemExit(1 if failed else 0)


@suspended.command()
@IDS
@ALL
@CAUSE
def archive(ids: tuple[int, ...], all_of_them: bool, cause: str | None) -> None:
    """Keep suspended mail in the quarantine, where Zendesk's 14 days do not count.

    Exits with 0 if there was room for all of them.
    """
    settings = _settings()
    _check(ids, all_of_them, cause)
    actor = command_actor()
    done = run_with_pool(lambda pool: _archive(pool, settings, ids, cause, actor))
    say(f"{done.kept} archived")
    if done.without_room:
        say(
            f"{done.without_room} not, for the quarantine is full: see `mailroom quarantine "
            "discard` and MAILROOM_QUARANTINE_MAX_ROWS"
        )
    if done.gone:
        say(f"{done.gone} not, for Zendesk has them no longer")
    raise SystemExit(1 if done.without_room or done.gone else 0)


def _settings() -> Settings:
    settings = get_settings()
    if not settings.zendesk_token:
        raise SuspendedError(
            "Zendesk has to be asked for this: set MAILROOM_ZENDESK_TOKEN, MAILROOM_ZENDESK_EMAIL "
            "and MAILROOM_ZENDESK_SUBDOMAIN"
        )
    return settings


def _check(ids: Sequence[int], all_of_them: bool, cause: str | None) -> None:
    if bool(ids) == all_of_them:
        raise SuspendedError("say which: ids, or --all (with --cause, all of that cause)")
    if cause and ids:
        raise SuspendedError("--cause goes with --all, not with ids")


async def _list(pool: Pool, settings: Settings) -> list[Row]:
    await refresh(settings, pool)
    return await rows.find_all(pool, MOST_SUSPENDED)


async def _selected(
    pool: Pool, settings: Settings, ids: Sequence[int], cause: str | None
) -> list[int]:
    found = await _list(pool, settings)
    if not ids:
        return [row.id for row in found if cause in (None, row.cause)]
    if unknown := set(ids) - {row.id for row in found}:
        raise SuspendedError(f"Zendesk has no suspended mail {_some(unknown)}")
    return list(dict.fromkeys(ids))


async def _recover(
    pool: Pool, settings: Settings, ids: Sequence[int], cause: str | None, actor: Actor
) -> tuple[int, set[int]]:
    selected = await _selected(pool, settings, ids, cause)
    client = ZendeskClient(settings, patience_seconds=60.0)
    try:
        return await recover_all(client, pool, selected, by="the command line", actor=actor)
    finally:
        await client.close()


async def _archive(
    pool: Pool, settings: Settings, ids: Sequence[int], cause: str | None, actor: Actor
) -> Archived:
    selected = await _selected(pool, settings, ids, cause)
    client = ZendeskClient(settings, patience_seconds=60.0, tries=3)
    try:
        return await archive_all(settings, pool, client, selected, actor=actor)
    finally:
        await client.close()


async def _get(settings: Settings, suspended_id: int) -> Suspended:
    client = ZendeskClient(settings, tries=3)
    try:
        found = await get_suspended(client, suspended_id)
    finally:
        await client.close()
    if found is None:
        raise SuspendedError(f"Zendesk has no suspended mail {suspended_id}")
    return found


def _why(found: Suspended | Row) -> str:
    return f"{found.cause} ({found.cause_text})" if found.cause_text else found.cause


def _some(ids: set[int]) -> str:
    shown = sorted(ids)[:20]
    return ", ".join(map(str, shown)) + (", ..." if len(ids) > len(shown) else "")


def _line(row: Row, now: datetime) -> str:
    kept = "  archived" if row.archived_at else ""
    age = (now - row.suspended_at).days
    return (
        f"{row.id}  {age} days old, {row.days_left(now):.1f} left  {_why(row)}  {row.sender}  "
        f"{row.subject}{kept}"
    )


def _as_object(row: Row, now: datetime) -> dict[str, object]:
    return {
        "id": row.id,
        "cause": row.cause,
        "cause_text": row.cause_text,
        "sender": row.sender,
        "subject": row.subject,
        "ticket_id": row.ticket_id,
        "suspended_at": row.suspended_at.isoformat(),
        "deleted_at": row.deleted_at.isoformat(),
        "days_left": round(row.days_left(now), 2),
        "archived_as": str(row.archived_as) if row.archived_as else None,
    }
