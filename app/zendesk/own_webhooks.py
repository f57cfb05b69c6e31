"""Which of the account's webhooks are Mailroom's."""

from urllib.parse import urlsplit

from app.intake.openapi import WEBHOOK_PATH
from app.settings import Settings
from app.zendesk.changes import signing_secret
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskForbiddenError, ZendeskNotFoundError
from app.zendesk.webhooks import Webhook, list_webhooks

MOST_PAGES = 20
NONE_FOUND = (
    f"no webhook of the account has an address that ends in {WEBHOOK_PATH}: name Mailroom's in "
    "MAILROOM_ZENDESK_WEBHOOK_ID"
)

SIGNS_OTHERWISE = (
    "Zendesk signs the calls of webhook {} with a secret that is not set here, and they are "
    "refused: add it to MAILROOM_WEBHOOK_SECRETS (`mailroom zendesk setup` does) and start "
    "`mailroom web` anew, then run `mailroom quarantine retry --all`"
)


async def find_own_webhooks(client: ZendeskClient, settings: Settings) -> list[Webhook]:
    """The one that the settings name, or all that lead here; none where there is none.

    Raises:
        ZendeskError: the class says why.
    """
    found: list[Webhook] = []
    after: str | None = None
    for _ in range(MOST_PAGES):
        page = await list_webhooks(client, after)
        found += page.items
        if (after := page.after) is None:
            break
    if settings.zendesk_webhook_id:
        return [webhook for webhook in found if webhook.id == settings.zendesk_webhook_id]
    leading = [one for one in found if _place(one.endpoint)[1].endswith(WEBHOOK_PATH)]
    if settings.public_url:
        own = _place(f"{settings.public_url.rstrip('/')}{WEBHOOK_PATH}")
        # Zendesk may take another way here than operators do: then all that lead here are ours.
        return [one for one in leading if _place(one.endpoint) == own] or leading
    return leading


def ambiguity(own: list[Webhook]) -> str | None:
    """Why it is not known which of these are ours, and how to mend it; None where it is known.
    Another Mailroom of the account, such as one for tests, is told from this one by its address."""
    places = sorted({"".join(_place(webhook.endpoint)) for webhook in own})
    if len(places) < 2:
        return None
    return (
        f"webhooks of the account lead to several Mailrooms ({', '.join(places)}), and emails of "
        "the others are taken for missing: name this one's address in MAILROOM_PUBLIC_URL, or its "
        "webhook in MAILROOM_ZENDESK_WEBHOOK_ID"
    )


async def unknown_secret(
    client: ZendeskClient, settings: Settings, own: list[Webhook]
) -> str | None:
    """Which of these is signed with a secret that is not set here, and how to mend it. None: none
    is, or it is not known, since Zendesk tells secrets to administrators alone.

    Raises:
        ZendeskError: the class says why.
    """
    if ambiguity(own):
        # Each Mailroom has a secret of its own.
        return None
    known = {secret.secret for secret in settings.webhook_secrets}
    for webhook in own:
        try:
            is_known = await signing_secret(client, webhook.id) in known
        except (ZendeskForbiddenError, ZendeskNotFoundError):
            return None
        if webhook.status == "active" and not is_known:
            return SIGNS_OTHERWISE.format(webhook.id)
    return None


def _place(endpoint: str) -> tuple[str, str]:
    """Host and path of an address."""
    parts = urlsplit(endpoint)
    return parts.netloc.rpartition("@")[2].lower(), parts.path.rstrip("/")
