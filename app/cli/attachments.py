"""`mailroom attachments`."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import click

from app.attachments import upkeep
from app.attachments.contents import remove_unless_needed, unreferenced
from app.attachments.downloads import Downloads
from app.attachments.reasons import sentence_of
from app.attachments.store import AttachmentStore
from app.attachments.upkeep import Damaged, File, Pool, Tally
from app.audit.acts import Act
from app.audit.log import in_steps, in_transaction, result_of, write
from app.cli.acting import command_actor
from app.cli.amounts import Amount
from app.cli.database_access import run_with_pool
from app.cli.moments import to_moment
from app.cli.printing import say
from app.errors import MailroomError
from app.models.email_attachment import AttachmentState
from app.settings import get_settings

MOST_LISTED = 1_000
# A century: beyond it no calendar has a day.
LONGEST_HOURS = 24 * 365 * 100


class AttachmentsError(MailroomError):
    """What is asked for is not possible."""


def _to_targets(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[tuple[UUID, int | None]]:
    """Emails, or single files of them."""
    targets: list[tuple[UUID, int | None]] = []
    for value in values:
        email_id, slash, position = value.partition("/")
        try:
            targets.append((UUID(email_id), int(position) if slash else None))
        except ValueError as error:
            raise click.BadParameter(
                f"{value!r} is neither ID nor ID/POSITION, as `list` prints it", ctx, param
            ) from error
    return targets


AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print it as JSON, an object a line."
)


@click.group()
def attachments() -> None:
    """Look after the files of emails.

    Workers fetch them and keep them in MAILROOM_ATTACHMENT_STORE. A file is named by the id of its
    email and its position, as in 0192.../0.
    """


@attachments.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in AttachmentState]),
    help="Only these; may be given several times. [default: all but kept]",
)
@click.option("--since", metavar="TIME", callback=to_moment, help="Only what ended since then.")
@click.option("--email", "email_id", type=click.UUID, help="Those of one email, in any state.")
@AS_JSON
def list_files(
    states: tuple[str, ...], since: datetime | None, email_id: UUID | None, as_json: bool
) -> None:
    """List files, those that ended last first, each with why it is not kept."""
    wanted = [AttachmentState(state) for state in states] or [
        state for state in AttachmentState if state is not AttachmentState.KEPT
    ]
    if email_id is not None:
        files = run_with_pool(lambda pool: upkeep.find_of_email(pool, email_id))
    else:
        files = run_with_pool(
            lambda pool: upkeep.find(pool, wanted, since=since, limit=MOST_LISTED)
        )
    for file in files:
        say(json.dumps(attrs.asdict(file), default=str) if as_json else _line(file))
    if len(files) == MOST_LISTED:
        say(f"These are the first {MOST_LISTED}: say --since or --state.", is_error=True)


@attachments.command()
@click.argument("targets", nargs=-1, callback=_to_targets, metavar="ID[/POSITION]...")
@click.option(
    "--failed-since", metavar="TIME", callback=to_moment, help="All that failed since then."
)
@click.option(
    "--since",
    metavar="TIME",
    callback=to_moment,
    help="Those of all emails received since then that were never asked for, as before an upgrade.",
)
def fetch(
    targets: list[tuple[UUID, int | None]],
    failed_since: datetime | None,
    since: datetime | None,
) -> None:
    """Have the workers fetch files, with all their tries.

    ID means those files of an email that are not kept, ID/POSITION one file: also if it is kept,
    and its bytes are missing or changed. What is kept and whole stays as it is.
    """
    if sum([bool(targets), failed_since is not None, since is not None]) != 1:
        raise AttachmentsError("say which: ID[/POSITION]..., --failed-since TIME or --since TIME")
    settings = get_settings()
    if settings.attachments == "off":
        raise AttachmentsError("MAILROOM_ATTACHMENTS is off: no worker would fetch anything")
    most = settings.attachment_max_count

    actor = command_actor()

    async def run(pool: Pool) -> int:
        if not targets:
            async with in_steps(pool, actor, Act.FILE_FETCH) as steps:
                if failed_since is not None:
                    steps.count = await upkeep.fetch_failed_since(pool, failed_since)
                elif since is not None:
                    steps.count = await upkeep.fetch_since(pool, since, most=most)
            return steps.count
        count = 0
        for email_id, position in targets:
            where = email_id if position is None else f"{email_id}/{position}"
            damaged: list[Damaged] = []
            if position is not None:
                damaged = await upkeep.find_damaged(
                    pool, email_id, position, open_store=_open_store
                )
            async with in_transaction(pool) as connection:
                again = await upkeep.fetch_again(
                    connection, email_id, position, damaged=damaged, most=most
                )
                await write(connection, actor, Act.FILE_FETCH, [where], result=result_of(again))
            if not again:
                say(f"{where}: there is nothing to fetch", is_error=True)
            count += again
        return count

    count = run_with_pool(run)
    say(f"{count} files are fetched by the workers now")
    raise SystemExit(0 if count or not targets else 1)


@attachments.command()
@click.option("--fetch", "fetch_damaged", is_flag=True, help="Have what is damaged fetched again.")
def verify(fetch_damaged: bool) -> None:
    """Read all bytes that are kept, and tell which are missing or changed.

    Exits with 0 if all are whole, else with 1.
    """
    tally, actor = Tally(), command_actor()

    async def run(pool: Pool) -> list[Damaged]:
        found = []
        async for one in upkeep.verify(pool, _open_store(), tally):
            say(f"{one.damage}: {one.sha256}, of {', '.join(one.names)}")
            found.append(one)
        if fetch_damaged:
            async with in_transaction(pool) as connection:
                again = await upkeep.refetch_damaged(connection, found)
                await write(connection, actor, Act.FILE_FETCH, result=result_of(again), count=again)
            say(f"{again} files are fetched again")
        return found

    damaged = run_with_pool(run)
    say(f"{tally.contents} contents, {tally.size} bytes, {len(damaged)} damaged")
    raise SystemExit(1 if damaged else 0)


@attachments.command()
@click.option(
    "--older-than",
    type=Amount(0, LONGEST_HOURS),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="What was stored later is left alone.",
)
@click.option("--delete", is_flag=True, help="Delete it. Without this it is only counted.")
def gc(older_than: float, delete: bool) -> None:
    """Find what the store has and no email needs, and delete it.

    What was erased goes at once, by the workers; this is about what killed processes left. A store
    is of one installation: what another one keeps there would be deleted.
    """
    before = datetime.now(UTC) - timedelta(hours=older_than)

    actor = command_actor()

    async def run(pool: Pool) -> tuple[int, int]:
        if not delete:
            return await clean(pool)
        async with in_steps(pool, actor, Act.STORE_CLEAN) as steps:
            steps.count, size = await clean(pool)
        return steps.count, size

    async def clean(pool: Pool) -> tuple[int, int]:
        store, count, size = _open_store(), 0, 0
        if delete:
            await upkeep.remove_orphans(pool)
        async for content in unreferenced(pool, store, before=before):
            if not delete or await remove_unless_needed(pool, store, content.sha256):
                count, size = count + 1, size + content.size
        left = await asyncio.to_thread(store.remove_leftovers, before, dry_run=not delete)
        return count + left, size

    count, size = run_with_pool(run)
    done = "deleted" if delete else "can be deleted, with --delete"
    say(f"{count} contents, {size} bytes {done}")


@attachments.command()
@click.option("--to", "to_url", metavar="URL", help="Copy from the present store to this one.")
@click.option("--from", "from_url", metavar="URL", help="Copy from this one to the present store.")
def move(to_url: str | None, from_url: str | None) -> None:
    """Copy all that is kept to another store. It goes on where it was ended.

    First `--to NEW`, while all runs; then set MAILROOM_ATTACHMENT_STORE to NEW and start everything
    again; then `--from OLD`, for what was kept meanwhile. The old store is left as it is.
    """
    if bool(to_url) == bool(from_url):
        raise AttachmentsError("say --to URL or --from URL")
    source = AttachmentStore.from_url(from_url) if from_url else _open_store()
    target = AttachmentStore.from_url(to_url) if to_url else _open_store()
    if source.url == target.url:
        raise AttachmentsError("that is the present store itself")
    tally, actor = Tally(), command_actor()

    async def run(pool: Pool) -> int:
        async with in_steps(pool, actor, Act.STORE_MOVE) as steps:
            damaged = await copy(pool)
            steps.count = tally.copied
        return damaged

    async def copy(pool: Pool) -> int:
        downloads = Downloads(get_settings().home / "downloads")
        count = 0
        try:
            async for one in upkeep.move(pool, source, target, downloads.path, tally):
                say(f"{one.damage}: {one.sha256}, of {', '.join(one.names)}", is_error=True)
                count += 1
        finally:
            downloads.close()
        return count

    damaged = run_with_pool(run)
    say(f"{tally.contents} contents, {tally.size} bytes: {tally.copied} copied, {damaged} damaged")
    raise SystemExit(1 if damaged else 0)


def _open_store() -> AttachmentStore:
    return AttachmentStore.from_url(get_settings().attachment_store_url)


def _line(file: File) -> str:
    size = f"{file.size} bytes" if file.size is not None else ""
    why = f"{file.reason}: {sentence_of(file.reason)}" if file.reason else ""
    parts = [file.name, file.state, size, file.filename or "", why, file.detail or ""]
    return "  ".join(part for part in parts if part)
