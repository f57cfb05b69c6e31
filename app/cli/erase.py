"""`mailroom erase` and `mailroom erasures`."""

import json
import sys
from typing import Any, TextIO
from uuid import UUID

import attrs
import click

from app.audit.acts import Act
from app.audit.log import in_steps, write
from app.cli.acting import by, command_actor
from app.cli.database_access import run_with_pool
from app.cli.printing import say
from app.errors import MailroomError
from app.jobs.transitions.erasing import Erased
from app.models.fit import in_utc
from app.retention import erasure, erasure_file, erasure_records
from app.retention.criteria import Criterion, Pool
from app.retention.drafts import remove_left
from app.retention.erasure_records import Record
from app.retention.spellings import find_other_spellings
from app.settings import get_settings

MOST_LISTED = 1_000

SENDER = click.option(
    "--sender",
    metavar="ADDRESS",
    help="All emails of this address, in upper or lower case; `-` reads it from standard input, so"
    " that it stands in no shell's history.",
)
TICKET = click.option("--ticket", metavar="ID", help="All emails of this ticket.")
EMAIL = click.option("--id", "email_id", type=click.UUID, help="This one email.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


class EraseError(MailroomError):
    """What is to be erased is not clear."""


@click.command()
@SENDER
@TICKET
@EMAIL
@click.option("--dry-run", is_flag=True, help="Count what would go, and erase nothing.")
@AS_JSON
def erase(
    sender: str | None, ticket: str | None, email_id: UUID | None, dry_run: bool, as_json: bool
) -> None:
    """Erase emails for good, with their files, histories, refused copies and pending deliveries.

    A later delivery of the same email is answered `duplicate` and stored never again; new mail of
    the same person is. Exits with 0 if there was something, else with 1.
    """
    criterion = _criterion(sender, ticket, email_id)
    if criterion is None:
        raise EraseError("say what: --sender ADDRESS, --ticket ID or --id ID")
    if dry_run:

        async def look(pool: Pool) -> tuple[Erased, list[str]]:
            return (
                await erasure.survey(pool, criterion),
                await find_other_spellings(pool, criterion),
            )

        found, others = run_with_pool(look)
        say(json.dumps(attrs.asdict(found)) if as_json else f"would erase {_counted(found)}")
        _tell_of(others)
        raise SystemExit(0 if found != Erased() else 1)
    actor = command_actor()

    async def erase_here(pool: Pool) -> tuple[Record, list[str]]:
        record = await erasure.erase(pool, criterion, by=by(), actor=actor)
        await remove_left(pool, get_settings().home)
        return record, await find_other_spellings(pool, criterion)

    record, others = run_with_pool(erase_here)
    say(json.dumps(_as_json(record)) if as_json else f"erased {_counted(record.erased)}")
    if not as_json:
        say(f"The record of it is {record.id}. Workers remove the bytes of files within seconds.")
        say("What the database's own files hold until then: see docs/retention.md.")
    _tell_of(others)
    raise SystemExit(0 if record.erased != Erased() else 1)


@click.group(invoke_without_command=True)
@SENDER
@TICKET
@EMAIL
@AS_JSON
@click.pass_context
def erasures(
    context: click.Context,
    sender: str | None,
    ticket: str | None,
    email_id: UUID | None,
    as_json: bool,
) -> None:
    """List the records of erasures, those asked for last first.

    No record tells whom it was about; with --sender, --ticket or --id those are listed that were.
    """
    if context.invoked_subcommand is not None:
        return
    criterion = _criterion(sender, ticket, email_id)
    records = run_with_pool(lambda pool: erasure_records.list_newest(pool, MOST_LISTED))
    for record in records:
        if criterion is None or record.is_about(criterion):
            say(json.dumps(_as_json(record)) if as_json else _line(record))


@erasures.command("export")
def export_erasures() -> None:
    """Print all that keeps erased emails from coming back, to be kept beside the backups.

    There are ids, hashes and times in it, and nobody's address.
    """

    actor = command_actor()

    async def print_all(pool: Pool) -> None:
        await write(pool, actor, Act.ERASURES_EXPORT)
        async for line in erasure_file.export(pool):
            say(line)

    run_with_pool(print_all)


@erasures.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
def import_erasures(file: TextIO) -> None:
    """Erase again what an older backup brought back, by a file that `export` printed (`-` reads
    standard input). It may be done twice."""
    actor = command_actor()

    async def restore(pool: Pool) -> erasure_file.Imported:
        async with in_steps(pool, actor, Act.ERASURES_IMPORT) as steps:
            found = await erasure_file.restore(pool, file)
            steps.count = found.emails
        return found

    found = run_with_pool(restore)
    say(f"{found.records} records were read, {found.emails} emails are erased again.")


def _criterion(sender: str | None, ticket: str | None, email_id: UUID | None) -> Criterion | None:
    given = [value is not None for value in (sender, ticket, email_id)]
    if sum(given) > 1:
        raise EraseError("say one of --sender, --ticket and --id")
    if sender is not None:
        return Criterion.sender(sys.stdin.readline() if sender == "-" else sender)
    if ticket is not None:
        return Criterion.ticket(ticket)
    return None if email_id is None else Criterion.email(email_id)


def _tell_of(senders: list[str]) -> None:
    for sender in senders:
        say(
            f"Emails of {sender!r} are not meant by this: if it is the same person, give that as "
            "--sender, too.",
            is_error=True,
        )


def _line(record: Record) -> str:
    at = in_utc(record.asked_at).isoformat(timespec="seconds")
    state = _counted(record.erased) if record.ended_at else "being worked off"
    if record.last_error is not None and not record.ended_at:
        state = f"failed {record.failures} times ({record.last_error}), is tried again by workers"
    return f"{at}  {record.id}  by {record.kind}  {state}  (asked by {record.asked_by})"


def _counted(erased: Erased) -> str:
    return (
        f"{erased.emails} emails, {erased.files} files, {erased.entries} entries of histories, "
        f"{erased.deliveries} pending deliveries, {erased.refused} refused webhooks or suspended "
        f"mails, {erased.waiting_files} files that waited for an email"
    )


def _as_json(record: Record) -> dict[str, Any]:
    asked, ended = record.asked_at, record.ended_at
    return {
        "id": str(record.id),
        "kind": record.kind.value,
        "asked_by": record.asked_by,
        "asked_at": asked.isoformat(),
        "ended_at": ended.isoformat() if ended else None,
        "failures": record.failures,
        "last_error": record.last_error,
        "erased": attrs.asdict(record.erased),
    }
