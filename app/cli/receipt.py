"""`mailroom receipt`: a proof of what was received, and what became of it."""

import json
from pathlib import Path
from uuid import UUID

import click

from app.api.receipt import ReceiptError, make_receipt, verify_receipt
from app.cli.database_access import ask
from app.cli.printing import say, say_lines
from app.settings import get_settings


@click.command()
@click.argument("email_id", metavar="ID", type=click.UUID, required=False)
@click.option(
    "--verify",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="See that nobody changed the receipt in this file. It needs no database.",
)
def receipt(email_id: UUID | None, file: Path | None) -> None:
    """Print a receipt of the email ID, which can be shown to others.

    It says what was received (its SHA-256, size, when Zendesk signed it and with which of our
    secrets), when it was stored, and what became of it; it holds no address and no text. Each step
    is bound to the one before by its hash, and all of it is signed with MAILROOM_RECEIPT_KEY.
    """
    if (email_id is None) == (file is None):
        raise ReceiptError("say which: the id of an email, or --verify and a file")
    settings = get_settings()
    if file is not None:
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ReceiptError(f"{file} is no receipt: {type(error).__name__}") from error
        verify_receipt(content, settings)
        say(f"right: email {content['email']} was stored, and nobody changed the receipt")
        return
    if email_id is not None:
        made = ask(lambda database: make_receipt(database, email_id, settings))
        say_lines(json.dumps(made, indent=2))
