"""`mailroom bulk`: one action on many emails."""

import json
import time
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import attrs
import click

from app.api.bulk_selection import select
from app.bulk import asking, rows
from app.bulk.acting import SAID, WOULD
from app.bulk.asking import Preview
from app.bulk.rows import Bulk
from app.cli.acting import by, command_actor
from app.cli.database_access import ask, run_with_pool
from app.cli.printing import say
from app.errors import MailroomError
from app.models.bulk_action import Action, BulkState
from app.settings import get_settings

MOST_LISTED = 100
LOOK_EVERY_SECONDS = 1.0

ACTION_ID = click.argument("action_id", metavar="ID", type=click.UUID)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


class BulkError(MailroomError):
    """What is asked for cannot be done."""


@click.group()
def bulk() -> None:
    """Do one thing to many emails: the workers do it in small batches."""


@bulk.command()
@click.argument("action", type=click.Choice([action.value for action in Action]))
@click.option("--search", help='Which emails, as on the page of emails: "status:failed error:503".')
@click.option("--id", "ids", multiple=True, type=click.UUID, help="These emails; several times.")
@click.option("--reason", help="Why; settle and discard need it.")
@click.option("--confirm", type=int, metavar="NUMBER", help="To erase: how many emails that are.")
@click.option("--apply", "applies", is_flag=True, help="Begin it; else it is only counted.")
@click.option("--wait", is_flag=True, help="Wait until the workers are through.")
@AS_JSON
def start(
    action: str,
    search: str | None,
    ids: tuple[UUID, ...],
    reason: str | None,
    confirm: int | None,
    applies: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Preview ACTION on many emails; with --apply, begin it.

    The emails that are meant are fixed when it begins. What changed since is looked at anew when
    its turn comes, and nothing is done twice. Exits with 1 if no email is like that.
    """
    settings, wish, selection = get_settings(), Action(action), select(search, ids)
    if not applies:
        found = run_with_pool(lambda pool: asking.preview(pool, wish, selection, settings))
        _say_preview(wish, found, as_json)
        raise SystemExit(0 if found.total else 1)

    actor = command_actor()

    async def begin(pool: "asyncpg.Pool[asyncpg.Record]") -> Bulk:
        return await asking.start(
            pool,
            uuid4(),
            wish,
            selection,
            settings,
            by=by(),
            actor=actor,
            reason=reason,
            confirmed=confirm,
        )

    begun = run_with_pool(begin)
    while wait and begun.state is BulkState.RUNNING:
        time.sleep(LOOK_EVERY_SECONDS)
        begun = _read(begun.id)
    _say(begun, as_json)


@bulk.command("list")
@AS_JSON
def list_all(as_json: bool) -> None:
    """List bulk actions, those asked for last first."""
    for one in ask(lambda database: rows.list_newest(database, limit=MOST_LISTED)):
        _say(one, as_json)


@bulk.command()
@ACTION_ID
@AS_JSON
def show(action_id: UUID, as_json: bool) -> None:
    """Say how far the bulk action ID is, and what it left out."""
    found = _read(action_id)
    _say(found, as_json)
    if not as_json:
        for why, number in found.reasons.items():
            say(f"  {number} {SAID.get(why, why)}")


@bulk.command()
@ACTION_ID
def stop(action_id: UUID) -> None:
    """Stop the bulk action ID. What is done stays done."""
    actor = command_actor()
    if not ask(lambda database: rows.stop(database, action_id, by=by(), actor=actor)):
        raise BulkError(f"it does not run: it is {_read(action_id).state}")
    _say(_read(action_id), as_json=False)


@bulk.command()
@ACTION_ID
def resume(action_id: UUID) -> None:
    """Let the bulk action ID go on, which was stopped."""
    actor = command_actor()
    if not ask(lambda database: rows.resume(database, action_id, actor=actor)):
        raise BulkError(
            f"it cannot go on: it is {_read(action_id).state}, or was asked for "
            f"{rows.KEPT_DAYS} days ago"
        )
    _say(_read(action_id), as_json=False)


def _read(action_id: UUID) -> Bulk:
    found = ask(lambda database: rows.read(database, action_id))
    if found is None:
        raise BulkError(f"there is no bulk action {action_id}: `mailroom bulk list` has all")
    return found


def _say_preview(action: Action, found: Preview, as_json: bool) -> None:
    if as_json:
        first = [str(row["id"]) for row in found.first]
        say(json.dumps(attrs.asdict(found) | {"first": first}))
        return
    say(f"{found.can} of {found.total} emails {WOULD[action]}")
    for why, number in found.cannot.items():
        say(f"  {number} {SAID.get(why, why)}")
    if found.can:
        confirm = f" --confirm {found.total}" if action.removes else ""
        say(f"do it with --apply{confirm}")


def _say(one: Bulk, as_json: bool) -> None:
    if as_json:
        content: dict[str, Any] = attrs.asdict(one)
        say(json.dumps(content, default=str))
        return
    which = "named emails" if one.filter is None else f"[{one.filter}]"
    at = one.asked_at.isoformat(timespec="seconds")
    say(
        f"{at}  {one.id}  {one.action} {which}: {one.state}, {one.looked_at} of {one.total}: "
        f"{one.done} done, {one.skipped} skipped, {one.failed} failed  (asked by {one.asked_by})"
    )
