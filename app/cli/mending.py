"""`mailroom quarantine edit` and `export`: refused webhooks that no retry can admit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import click

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import write
from app.cli.acting import by, command_actor
from app.cli.database_access import run_with_pool
from app.cli.printing import OutputError, say, say_lines, write_bytes
from app.cli.quarantine_access import (
    ALL,
    IDS,
    REASON,
    Pool,
    SelectionError,
    check_selection,
    draft_of,
    find,
    selected,
    to_json,
    to_reason,
)
from app.intake.intake import Intake
from app.intake.mending import Findings, MendingError, admit_mended, as_text, examine
from app.intake.refusals import Refusal
from app.intake.refused import RefusedError
from app.intake.unstorable import UnstorableError
from app.models.quarantined_webhook import RefusalReason
from app.settings import get_settings


@click.command()
@click.argument("refusal_id", metavar="ID", type=click.UUID)
@click.option(
    "--file", "file", type=click.File("rb"), help="The mended text; `-` is standard input."
)
@click.option(
    "--accept-unsigned",
    is_flag=True,
    help="Admit it although its signature is missing or wrong: you know that it is Zendesk's.",
)
@click.option(
    "--without-sender", is_flag=True, help="Admit it with an empty sender, where nobody knows it."
)
def edit(
    refusal_id: UUID, file: BinaryIO | None, accept_unsigned: bool, without_sender: bool
) -> None:
    """Mend the refused webhook ID by hand, and admit it.

    Its text opens in $EDITOR, or comes from --file. The email keeps its time of receipt, and the
    bytes as they came. Exits with 0 if it was admitted.
    """
    mended = file.read() if file else None
    run_with_pool(
        lambda pool: _edit(
            pool,
            refusal_id,
            mended,
            accept_unsigned=accept_unsigned,
            without_sender=without_sender,
        )
    )


@click.command()
@IDS
@ALL
@REASON
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Of one webhook.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Of any number: ID.body has the bytes, ID.json the rest.",
)
def export(
    ids: tuple[UUID, ...],
    all_of_them: bool,
    reason: str | None,
    file: Path | None,
    folder: Path | None,
) -> None:
    """Write the bytes of refused webhooks to files, or of one to standard output.

    They stay in the quarantine.
    """
    check_selection(ids, all_of_them, reason)
    if folder is None and len(ids) != 1:
        raise SelectionError("say where to: --folder, for more than one webhook")
    if folder is not None and file is not None:
        raise SelectionError("--file and --folder do not go together")
    actor = command_actor()
    run_with_pool(lambda pool: _export(pool, ids, to_reason(reason), file, folder, actor))


async def _edit(
    pool: Pool,
    refusal_id: UUID,
    mended: bytes | None,
    *,
    accept_unsigned: bool,
    without_sender: bool,
) -> None:
    refusal = await find(pool, refusal_id)
    intake = Intake(get_settings(), pool)
    try:
        if mended is None:
            say_lines(describe(refusal, examine(intake, refusal)))
            mended = _edit_by_hand(refusal)
        try:
            admission = await admit_mended(
                intake,
                pool,
                refusal,
                body=mended,
                by=by(),
                actor=command_actor(),
                accept_unsigned=accept_unsigned,
                without_sender=without_sender,
            )
        except (RefusedError, UnstorableError, MendingError) as error:
            raise SelectionError(f"it is not admitted: {error}{_kept(refusal, mended)}") from error
    finally:
        await intake.close()
    draft_of(refusal.id).unlink(missing_ok=True)
    found = "a duplicate of" if admission.is_duplicate else "admitted as"
    say(f"{refusal.id} is {found} email {admission.email_id}")


def describe(refusal: Refusal, findings: Findings) -> str:
    is_suspended = refusal.reason is RefusalReason.SUSPENDED
    signed = "right: Zendesk sent it" if findings.is_genuine else "missing, wrong or too old"
    signed = "none: it is from Zendesk's API" if is_suspended else signed
    how = "`mailroom quarantine edit` admits it"
    if not is_suspended:
        how = "`mailroom quarantine retry` looks at it anew"
    wrong = findings.wrong or [f"nothing: {how}"]
    # One line each, whatever is quoted in it.
    lines = [f"signature: {signed}", *(f"wrong: {one}" for one in wrong)]
    return "\n".join(line.replace("\n", "\\n") for line in lines)


def _edit_by_hand(refusal: Refusal) -> bytes:
    path = draft_of(refusal.id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Whole or not at all: an empty draft would be opened the next time.
        begun = path.with_suffix(".new")
        begun.touch(mode=0o600)
        _write(begun, as_text(refusal).encode("utf-8", "replace"))
        begun.rename(path)
    before = path.stat().st_mtime_ns, path.read_bytes()
    click.edit(filename=str(path))
    if not path.exists():
        raise SelectionError(
            f"nothing is admitted: {refusal.id} has left the quarantine meanwhile, and its text "
            "went with it"
        )
    if (path.stat().st_mtime_ns, path.read_bytes()) == before:
        raise SelectionError(
            "nothing was written in the editor, so nothing is admitted: save the text to admit it, "
            f"or say `--file {path}`"
        )
    return path.read_bytes()


def _kept(refusal: Refusal, mended: bytes | None) -> str:
    path = draft_of(refusal.id)
    if mended is None or not path.exists():
        return ""
    return f"; what you wrote is kept in {path}, and the same command opens it again"


async def _export(
    pool: Pool,
    ids: Sequence[UUID],
    reason: RefusalReason | None,
    file: Path | None,
    folder: Path | None,
    actor: Actor,
) -> None:
    if folder is None:
        refusal = await find(pool, ids[0])
        if refusal.body is None:
            raise SelectionError("its body was not kept, because it was too large")
        await write(pool, actor, Act.QUARANTINE_EXPORT, ids)
        if file is None:
            write_bytes(refusal.body)
        else:
            _write(file, refusal.body)
        return
    count = 0
    async for page in selected(pool, ids, reason):
        await write(pool, actor, Act.QUARANTINE_EXPORT, [refusal.id for refusal in page])
        for refusal in page:
            about = {**json.loads(to_json(refusal)), "headers": dict(refusal.headers)}
            _write(folder / f"{refusal.id}.json", json.dumps(about, indent=2).encode())
            if refusal.body is not None:
                _write(folder / f"{refusal.id}.body", refusal.body)
            count += 1
    say(f"{count} written to {folder}")


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
