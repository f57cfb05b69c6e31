"""What `mailroom doctor` checks of the way from Zendesk."""

from app.alerts.canary import find_standing
from app.database.engine import DB
from app.errors import MailroomError
from app.settings import Settings
from app.zendesk.client import ZendeskClient
from app.zendesk.clocks import skew
from app.zendesk.errors import ZendeskForbiddenError, ZendeskNotFoundError
from app.zendesk.outage import outage_now
from app.zendesk.own_webhooks import ambiguity, find_own_webhooks, unknown_secret
from app.zendesk.silence import see
from app.zendesk.users import own_role
from app.zendesk.webhooks import Webhook


class NotWellError(MailroomError):
    """A check failed; the message says what is wrong and how to mend it."""


async def zendesk_check(settings: Settings) -> str:
    """Whether Zendesk accepts the token.

    Raises:
        NotWellError: no.
    """
    if not settings.zendesk_token:
        return (
            "Zendesk's API is not asked: without MAILROOM_ZENDESK_TOKEN nobody watches for emails "
            "that it never delivered or suspended, nor whether its webhook and trigger are active"
        )
    client = ZendeskClient(settings)
    own: list[Webhook] = []
    reserve, foreign = "", None
    try:
        role = await own_role(client)
        try:
            own = await find_own_webhooks(client, settings)
            foreign = await unknown_secret(client, settings, own)
        except (ZendeskForbiddenError, ZendeskNotFoundError) as error:
            # Files are fetched without that.
            reserve = f"; it tells nothing of webhooks, as it does an administrator ({error})"
    finally:
        await client.close()
    for wrong in (skew(client.clock_ahead), ambiguity(own), foreign):
        if wrong is not None:
            raise NotWellError(wrong)
    return f"{settings.zendesk_address} accepts the token, as that of an {role}{reserve}"


async def silence_check(settings: Settings) -> str:
    """Whether email comes as it usually does.

    Raises:
        NotWellError: no.
    """
    await DB.ensure_running()
    async with DB.make_pool(max_size=2) as pool:
        verdict = (await see(settings, pool)).verdict
    if (trouble := verdict.trouble) is not None:
        raise NotWellError(f"{trouble.text}: {trouble.mend}")
    return verdict.summary


async def canary_check(settings: Settings) -> str:
    """Whether canaries go the whole way.

    Raises:
        NotWellError: no.
    """
    if not settings.canary_seconds:
        return "no canary tries the way of emails: MAILROOM_CANARY_SECONDS=60 sends one each minute"
    await DB.ensure_running()
    connection = await DB.get_new_connection()
    try:
        standing = await find_standing(connection)
    finally:
        await connection.close()
    if standing is None:
        return "no canary has been sent yet"
    if not standing.is_well(settings):
        raise NotWellError(
            f"{standing.summary(settings)}: see that `mailroom web` and `mailroom worker` run, and "
            "what `mailroom alerts list` says"
        )
    return standing.summary(settings)


async def outage_check(settings: Settings) -> str:
    """Whether email would be found that comes while the web process is down.

    Raises:
        NotWellError: no.
    """
    await DB.ensure_running()
    connection = await DB.get_new_connection()
    try:
        outage = await outage_now(connection, settings.watched_every)
    finally:
        await connection.close()
    if not outage.is_found:
        raise NotWellError(
            f"{outage.summary}: let a second web process listen meanwhile, or see that "
            "MAILROOM_ZENDESK_TOKEN is set and `mailroom gaps` works"
        )
    return outage.summary
