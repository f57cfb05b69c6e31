"""`mailroom show` and `mailroom stuck`."""

import json
from typing import Any
from uuid import UUID

import attrs
import click

from app.cli.database_access import ask
from app.cli.lint import told
from app.cli.printing import say, say_lines
from app.errors import MailroomError
from app.intake.field_orders import FieldOrders
from app.jobs.story import Story, tell_story
from app.jobs.stuck import Stuck, find_stuck
from app.jobs.transitions.common import Database
from app.retention.erasure_records import find_of_email
from app.settings import get_settings
from app.zendesk.lint.findings import Report
from app.zendesk.lint.stored import lint_email

MOST_STUCK = 1_000


class NoSuchEmailError(MailroomError):
    """There is no email of that id."""


@click.command()
@click.argument("email_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(email_id: UUID, as_json: bool) -> None:
    """Tell the story of the email EMAIL_ID: what happened to it, and what comes next."""
    story, report = ask(lambda database: _look(database, email_id))
    if story is None:
        raise _not_there(email_id)
    if as_json:
        say_lines(_to_json(story))
        return
    say(f"Email {story.id}, ticket {story.zendesk_ticket_id}: {story.status}")
    for event in story.events:
        say(f"  {event.at.isoformat(timespec='milliseconds')}  {event.what}")
    when = f", at the latest {story.next_at.isoformat(timespec='seconds')}" if story.next_at else ""
    say(f"Next: {story.next_step}{when}")
    if report is not None and report.findings:
        say("What is wrong with its payload:")
        say_lines("\n".join(told(report, "payload")))


def _not_there(email_id: UUID) -> NoSuchEmailError:
    erasure = ask(lambda database: find_of_email(database, email_id))
    if erasure is None:
        return NoSuchEmailError(f"there is no email {email_id}: its id is in the webhook's answer")
    return NoSuchEmailError(
        f"the email {email_id} was erased for good, as {erasure.asked_by} asked on "
        f"{erasure.asked_at.isoformat(timespec='seconds')} (erasure {erasure.id})"
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def stuck(as_json: bool) -> None:
    """List the emails that are older in their state than expected.

    Exits with 0 if there are none, else with 1: good for a check by cron.
    """
    found = ask(lambda database: find_stuck(database, get_settings(), limit=MOST_STUCK))
    if as_json:
        say_lines(_to_json(found))
    for email in found if not as_json else ():
        seconds = int(email.age.total_seconds())
        say(f"{email.id}  {email.status:<10}  for {seconds} s")
    raise SystemExit(1 if found else 0)


async def _look(database: Database, email_id: UUID) -> tuple[Story | None, Report | None]:
    settings = get_settings()
    story = await tell_story(database, email_id, settings)
    return story, await lint_email(database, email_id, FieldOrders(settings.webhook_fields))


def _to_json(told: Story | list[Stuck]) -> str:
    content: Any = (
        [attrs.asdict(item) for item in told] if isinstance(told, list) else attrs.asdict(told)
    )
    return json.dumps(content, indent=2, default=str)
