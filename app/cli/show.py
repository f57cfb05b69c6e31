"""`mailroom show` and `mailroom stuck`."""

import json
from typing import Any
from uuid import UUID

import attrs
import click

from app.cli.database_access import ask
from app.cli.printing import say, say_lines
from app.errors import MailroomError
from app.jobs.story import Story, Stuck, find_stuck, tell_story
from app.settings import get_settings

MOST_STUCK = 1_000


class NoSuchEmailError(MailroomError):
    """There is no email of that id."""


@click.command()
@click.argument("email_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(email_id: UUID, as_json: bool) -> None:
    """Tell the story of the email EMAIL_ID: what happened to it, and what comes next."""
    story = ask(lambda database: tell_story(database, email_id, get_settings()))
    if story is None:
        raise NoSuchEmailError(f"there is no email {email_id}: its id is in the webhook's answer")
    if as_json:
        say_lines(_to_json(story))
        return
    say(f"Email {story.id}, ticket {story.zendesk_ticket_id}: {story.status}")
    for event in story.events:
        say(f"  {event.at.isoformat(timespec='milliseconds')}  {event.what}")
    when = f", at the latest {story.next_at.isoformat(timespec='seconds')}" if story.next_at else ""
    say(f"Next: {story.next_step}{when}")


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


def _to_json(told: Story | list[Stuck]) -> str:
    content: Any = (
        [attrs.asdict(item) for item in told] if isinstance(told, list) else attrs.asdict(told)
    )
    return json.dumps(content, indent=2, default=str)
