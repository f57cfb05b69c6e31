"""`mailroom zendesk`: the way from Zendesk to Mailroom, made, mended and checked by its API."""

import asyncio
from collections.abc import Awaitable, Callable

import click

from app.audit.acts import Act
from app.audit.log import write
from app.cli.acting import command_actor
from app.cli.addresses import split_address
from app.cli.database_access import ask
from app.cli.printing import say
from app.cli.secret_file import NotStoredHereError, store_secret
from app.errors import MailroomError
from app.intake.openapi import WEBHOOK_PATH
from app.setting_groups.group import LOOPBACK
from app.settings import Settings, get_settings
from app.zendesk.changes import send_test
from app.zendesk.client import ZendeskClient
from app.zendesk.way import Trouble, Way, judge, look, troubles

# More than there are things to mend.
MOST_STEPS = 12
PATIENCE_SECONDS = 90.0

URL = click.option(
    "--url", help="Mailroom's public address, with its path if any. [default: MAILROOM_PUBLIC_URL]"
)


class SetUpError(MailroomError):
    """The way cannot be looked at or mended; the message says why."""


@click.group()
def zendesk() -> None:
    """Make, mend and check the webhook and the trigger at Zendesk.

    MAILROOM_ZENDESK_SUBDOMAIN, MAILROOM_ZENDESK_EMAIL and MAILROOM_ZENDESK_TOKEN say which account,
    and as whom; an administrator's token is needed.
    """


@zendesk.command()
@URL
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--print-secret", is_flag=True, help="Print the secret in place of storing it.")
def setup(url: str | None, dry_run: bool, print_secret: bool) -> None:
    """Make the webhook and the trigger, or mend them, and store the signing secret.

    The secret is added to MAILROOM_WEBHOOK_SECRETS in the .env file of the working folder, or in
    the file that MAILROOM_WEBHOOK_SECRETS_FILE names. Then Zendesk's own test is sent. What is
    right already is left alone: run it again to see. Exits with 0 if all is well in the end.
    """
    actor = command_actor()
    is_well = _run(
        url, lambda client, settings, to: _set_up(client, settings, to, dry_run, print_secret)
    )
    if not dry_run:
        try:
            ask(lambda database: write(database, actor, Act.ZENDESK_SET_UP))
        except MailroomError as error:
            say(f"The audit log does not have it: {error}", is_error=True)
    raise SystemExit(0 if is_well else 1)


@zendesk.command()
@URL
def check(url: str | None) -> None:
    """Check the way from Zendesk to Mailroom, and change nothing.

    Whether the webhook leads here and is active, a trigger calls it and is active, its template
    holds what is needed, the secret is one of ours, and Zendesk's own test arrives. Exits with 0 if
    all is well.
    """
    raise SystemExit(0 if _run(url, _check) else 1)


def _run(url: str | None, work: Callable[[ZendeskClient, Settings, str], Awaitable[bool]]) -> bool:
    settings = get_settings()
    if not settings.zendesk_token:
        raise SetUpError(
            "set MAILROOM_ZENDESK_SUBDOMAIN, MAILROOM_ZENDESK_EMAIL and MAILROOM_ZENDESK_TOKEN"
        )
    endpoint = _endpoint(url or settings.public_url, is_production=settings.is_production)

    async def run() -> bool:
        client = ZendeskClient(settings, patience_seconds=PATIENCE_SECONDS, tries=3)
        try:
            return await work(client, settings, endpoint)
        finally:
            await client.close()

    return asyncio.run(run())


async def _set_up(
    client: ZendeskClient, settings: Settings, endpoint: str, dry_run: bool, print_secret: bool
) -> bool:
    way = await look(client, settings, endpoint)
    if dry_run:
        return _tell_plan(troubles(way, settings, endpoint), way)
    changed = 0
    for _ in range(MOST_STEPS):
        mendable = [one for one in troubles(way, settings, endpoint) if one.change]
        if not mendable:
            break
        trouble = mendable[0]
        assert trouble.change is not None  # noqa: S101 - those alone were taken
        await trouble.change(client)
        changed += 1
        say(f"mended  {trouble.text}: {trouble.mend}")
        way = await look(client, settings, endpoint)
    left = troubles(way, settings, endpoint)
    if any(one.is_secret for one in left) and way.secret is not None:
        changed += 1
        left = _store(way.secret, left, print_secret)
    if not changed:
        say("nothing to change")
    return await _tell_rest(client, way, left)


def _store(secret: str, left: list[Trouble], print_secret: bool) -> list[Trouble]:
    if print_secret:
        say(f"MAILROOM_WEBHOOK_SECRETS needs {secret}")
        return left
    try:
        path = store_secret(secret)
    except NotStoredHereError as error:
        return [Trouble(one.text, str(error)) if one.is_secret else one for one in left]
    except OSError as error:
        raise SetUpError(
            f"the secret is not stored: {error.strerror} ({error.filename})"
        ) from error
    say(f"stored  the signing secret in {path}: processes learn of it when they are restarted")
    return [one for one in left if not one.is_secret]


async def _check(client: ZendeskClient, settings: Settings, endpoint: str) -> bool:
    way = await look(client, settings, endpoint)
    return await _tell_rest(client, way, troubles(way, settings, endpoint))


async def _tell_rest(client: ZendeskClient, way: Way, left: list[Trouble]) -> bool:
    if way.webhook is not None:
        said = judge(await send_test(client, way.webhook))
        if said is not None:
            left = [*left, said]
        else:
            say(f"ok      Zendesk's test of webhook {way.webhook.id} came, signed as it should be")
        if not left:
            say(f"ok      {len(way.triggers)} trigger(s) call it with a template that is right")
    for trouble in left:
        say(f"WRONG   {trouble.text}: {trouble.mend}")
    return not left


def _tell_plan(found: list[Trouble], way: Way) -> bool:
    for trouble in found:
        say(f"would mend  {trouble.text}: {trouble.mend}")
    if way.webhook is None and any(trouble.change for trouble in found):
        say("would mend  no trigger calls it: a trigger is made")
        say("would mend  its signing secret is not known: it is stored")
    if not found:
        say("nothing to change")
    return not found


def _endpoint(url: str, *, is_production: bool) -> str:
    """The address of our webhook.

    Raises:
        AddressError: the public address is none.
        SetUpError: it is missing, or none that Zendesk could call.
    """
    parts = split_address(url) if url else None
    is_near = parts is not None and parts.hostname in LOOPBACK and not is_production
    if parts is None or not (parts.scheme == "https" or is_near):
        raise SetUpError(
            "say Mailroom's public address: --url https://mailroom.example.com, or "
            "MAILROOM_PUBLIC_URL"
        )
    return url.rstrip("/").removesuffix(WEBHOOK_PATH) + WEBHOOK_PATH
