"""Which triggers of the account call a webhook.

https://developer.zendesk.com/api-reference/ticketing/business-rules/triggers/
"""

from typing import Any

import attrs

from app.zendesk.client import ZendeskClient
from app.zendesk.items import read_page

PAGE_SIZE = "100"
MOST_PAGES = 20
# Of webhooks that are made for triggers; others subscribe to events themselves.
FOR_TRIGGERS = "conditional_ticket_events"
CALLS_WEBHOOK = "notification_webhook"


@attrs.frozen
class Action:
    """Something that a trigger does."""

    field: str
    value: Any = None
    """Of a call of a webhook: its id, and the body's template."""


@attrs.frozen
class Trigger:
    """A trigger of the account."""

    id: int
    title: str = ""
    active: bool = False
    actions: list[Action] = attrs.field(factory=list)
    conditions: Any = None

    def calls(self, webhook_ids: set[str]) -> bool:
        """Whether it calls one of these webhooks."""
        return any(
            action.field == CALLS_WEBHOOK
            and isinstance(action.value, list)
            and str(action.value[:1] and action.value[0]) in webhook_ids
            for action in self.actions
        )


async def list_triggers(client: ZendeskClient) -> list[Trigger]:
    """All triggers of the account, active or not.

    Raises:
        ZendeskError: the class says why.
    """
    found: list[Trigger] = []
    after: str | None = None
    for _ in range(MOST_PAGES):
        params = {"page[size]": PAGE_SIZE, **({"page[after]": after} if after else {})}
        page = read_page(await client.get("/api/v2/triggers", params), "triggers", Trigger)
        found += page.items
        if (after := page.after) is None:
            break
    return found
