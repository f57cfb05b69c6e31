"""`mailroom handler run`: try a handler on one email, whose state is left as it is."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import click

from app.cli.database_access import run_with_pool
from app.cli.email_files import read_email_file
from app.cli.printing import say, say_lines
from app.errors import MailroomError
from app.handlers.loading import Handler, load_handler
from app.handlers.seam import Email
from app.handlers.surroundings import Surroundings
from app.jobs.claimed_email import JSON
from app.jobs.trial import Trial, TrialOutcome, try_handler
from app.models.fit import read_json
from app.outbound.for_handlers import DryRunError
from app.settings import Settings, get_settings
from app.telemetry.logs import configure_logging

FIND = "SELECT * FROM incoming_emails WHERE id = $1"


class NoSuchEmailError(MailroomError):
    """What was named is neither an email's id nor a file."""


@click.group()
def handler() -> None:
    """Try handlers."""


@handler.command("run")
@click.argument("email", metavar="ID|FILE")
@click.option("--handler", "path", help="package.module:function. [default: MAILROOM_HANDLER]")
@click.option("--attempt", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--dry-run", is_flag=True, help="Tell the handler to change nothing elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run_handler(email: str, path: str | None, attempt: int, dry_run: bool, as_json: bool) -> None:
    """Run a handler on one email, and tell what would be recorded.

    The email is one of the database, by its ID; or a FILE: a webhook's JSON, or a message (.eml).
    Nothing is recorded and no state changes. What the handler does elsewhere it does, unless with
    --dry-run: then `context.is_dry_run` is true, and `context.http` sends nothing but GET, HEAD and
    OPTIONS.

    Exits with 0 if the email would be completed, else with 1.
    """
    settings = get_settings()
    configure_logging(settings)
    loaded = load_handler(path or settings.handler, threads=None)

    def tell(text: str) -> None:
        say(f"  progress: {text}", is_error=as_json)

    say(f"{path or settings.handler}, attempt {attempt}:", is_error=as_json)
    trial = _try(loaded, email, settings, attempt=attempt, is_dry_run=dry_run, tell=tell)
    if as_json:
        say_lines(json.dumps(_to_json(trial), indent=2, ensure_ascii=False, default=str))
    else:
        _say(trial)
    raise SystemExit(0 if trial.outcome is TrialOutcome.COMPLETED else 1)


def _try(loaded: Handler, named: str, settings: Settings, **options: Any) -> Trial:
    if Path(named).is_file():
        email = read_email_file(Path(named))
        return asyncio.run(_try_on(loaded, email, settings, None, **options))
    try:
        email_id = UUID(named)
    except ValueError:
        raise NoSuchEmailError(
            f"{named} is no file, and no id of an email: the id is in the webhook's answer"
        ) from None

    async def find_and_try(pool: Any) -> Trial:
        row = await pool.fetchrow(FIND, email_id)
        if row is None:
            raise NoSuchEmailError(f"there is no email {email_id}")
        columns = {name: value for name, value in row.items() if hasattr(Email, name)}
        columns |= {name: read_json(row[name]) for name in JSON}
        return await _try_on(loaded, Email(**columns), settings, pool, **options)

    return run_with_pool(find_and_try)


async def _try_on(
    loaded: Handler, email: Email, settings: Settings, pool: Any, **options: Any
) -> Trial:
    surroundings = Surroundings(settings, pool, is_dry_run=options["is_dry_run"])
    if pool is not None:
        email.attachments = surroundings.attachments(email.id)
    try:
        return await try_handler(loaded, email, settings, client=surroundings.client, **options)
    finally:
        await surroundings.close()


def _to_json(trial: Trial) -> dict[str, Any]:
    return {
        name: value
        for name, value in attrs.asdict(trial, recurse=False).items()
        if name != "exception"
    }


def _say(trial: Trial) -> None:
    if isinstance(trial.exception, DryRunError):
        say(f"stopped after {trial.seconds:.3f} s by --dry-run: {trial.exception}")
        return
    say(f"{trial.outcome} after {trial.seconds:.3f} s; recorded would be")
    if trial.outcome is TrialOutcome.COMPLETED:
        say(f"  extracted_data: {json.dumps(trial.extracted_data, ensure_ascii=False)}")
        body = trial.cleaned_body
        say(f"  cleaned_body: {'nothing' if body is None else f'{len(body)} characters'}")
    else:
        say(f"  error: {trial.error}")
    if trial.retry_after is not None:
        say(f"  next attempt: after {trial.retry_after:.0f} s")
