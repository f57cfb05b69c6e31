"""`mailroom send`."""

from typing import BinaryIO

import click
import httpx2

from app.cli.addresses import split_address
from app.cli.printing import say_lines
from app.errors import MailroomError
from app.intake.openapi import WEBHOOK_PATH
from app.intake.signature import signed_headers
from app.settings import Settings, get_settings

# Zendesk itself gives up at 10 to 12.
ANSWER_SECONDS = 12.0


class SendError(MailroomError):
    """The webhook got no answer."""


def webhook_url(settings: Settings) -> str:
    """Where this installation takes webhooks, seen from this machine."""
    return f"{settings.own_address}{WEBHOOK_PATH}"


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--url", help="Where to post it. [default: the webhook of this installation]")
@click.option(
    "--secret",
    envvar="MAILROOM_SEND_SECRET",
    help="Secret to sign it with; better given as MAILROOM_SEND_SECRET, which `ps` does not "
    "show. [default: the first of MAILROOM_WEBHOOK_SECRETS]",
)
def send(file: BinaryIO, url: str | None, secret: str | None) -> None:
    """Sign the JSON in FILE as Zendesk does, and post it.

    FILE is `-` or left out: standard input. Exits with 0 if the answer is 200.

    \b
    Example:
      echo '{"ticket_id": "1", "from_email": "erika@example.com"}' | mailroom send
    """
    settings = get_settings()
    body = file.read()
    secret = secret or settings.webhook_secrets[0].secret
    url = url or webhook_url(settings)
    split_address(url)
    try:
        answer = httpx2.post(
            url,
            content=body,
            headers=signed_headers(secret, body),
            timeout=ANSWER_SECONDS,
        )
    except httpx2.InvalidURL as error:
        raise SendError(f"--url {url} is not a URL: {error}") from error
    except httpx2.HTTPError as error:
        raise SendError(
            f"no answer from {url} ({type(error).__name__}): is `mailroom up` or `mailroom web` "
            "running there?"
        ) from error
    say_lines(f"{answer.status_code} {answer.text}")
    raise SystemExit(0 if answer.is_success else 1)
