"""What Zendesk says of the way that email takes to Mailroom."""

from datetime import UTC, datetime

import attrs

from app.settings import Settings
from app.zendesk.causes import LEAST_FAILING, Call, Facts
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskShapeError
from app.zendesk.own_webhooks import ambiguity, find_own_webhooks, unknown_secret
from app.zendesk.triggers import FOR_TRIGGERS, list_triggers
from app.zendesk.webhooks import Webhook, list_invocations

# Of a webhook's calls; twenty times a hundred in ten minutes is more than a desk has.
MOST_PAGES = 20


async def ask_way(
    client: ZendeskClient, settings: Settings, since: datetime | None, known: Facts
) -> Facts:
    """Webhooks, triggers, and the calls since the last email, beside what is known already.

    Raises:
        ZendeskError: the class says why.
    """
    webhooks = await find_own_webhooks(client, settings)
    known = attrs.evolve(known, ambiguity=ambiguity(webhooks))
    if not webhooks:
        # Without an id it is not known that there was one: a proxy may change the path.
        return attrs.evolve(known, has_webhook=False if settings.zendesk_webhook_id else None)
    active = [webhook for webhook in webhooks if webhook.status == "active"]
    if not active:
        return attrs.evolve(known, has_webhook=True, is_webhook_active=False)
    return attrs.evolve(
        known,
        has_webhook=True,
        is_webhook_active=True,
        is_trigger_active=await _has_active_trigger(client, active),
        calls=await _calls(client, active, since),
        unknown_secret=await unknown_secret(client, settings, active),
    )


async def count_tickets(client: ZendeskClient, since: datetime) -> int:
    """How many tickets were made by email since a moment. Zendesk's search learns of a new ticket
    within some minutes.

    https://developer.zendesk.com/api-reference/ticketing/ticket-management/search/#show-results-count

    Raises:
        ZendeskError: the class says why.
    """
    moment = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    query = f"type:ticket via:mail created>{moment}"
    content = await client.get("/api/v2/search/count", {"query": query})
    count = content.get("count") if isinstance(content, dict) else None
    if not isinstance(count, int):
        raise ZendeskShapeError("Zendesk's API answers no count of tickets")
    return count


async def _has_active_trigger(client: ZendeskClient, active: list[Webhook]) -> bool:
    if any(FOR_TRIGGERS not in webhook.subscriptions for webhook in active):
        return True
    ids = {webhook.id for webhook in active}
    return any(trigger.active and trigger.calls(ids) for trigger in await list_triggers(client))


async def _calls(
    client: ZendeskClient, active: list[Webhook], since: datetime | None
) -> list[Call]:
    calls: list[Call] = []
    for webhook in active:
        calls += await _calls_of(client, webhook.id, since)
    return sorted(calls, key=lambda call: call.at, reverse=True)


async def _calls_of(client: ZendeskClient, webhook_id: str, since: datetime | None) -> list[Call]:
    calls: list[Call] = []
    after: str | None = None
    for _ in range(MOST_PAGES):
        page = await list_invocations(client, webhook_id, after)
        new = [
            Call(each.latest_completed_at, each.status, each.status_code)
            for each in page.items
            if since is None or each.latest_completed_at > since
        ]
        calls += new
        after = page.after
        # A busy desk has a page of calls in a few minutes, which do not tell how long they fail.
        is_enough = any(call.is_delivered for call in new) or (
            len(calls) > 0 and calls[0].at - calls[-1].at >= LEAST_FAILING
        )
        if after is None or len(new) < len(page.items) or is_enough:
            break
    return calls
