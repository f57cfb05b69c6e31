"""What Mailroom changes at Zendesk, where an operator asks for it: its webhook and its trigger.

https://developer.zendesk.com/api-reference/webhooks/webhooks-api/webhooks/
https://developer.zendesk.com/api-reference/ticketing/business-rules/triggers/
"""

from http import HTTPMethod
from typing import Any
from uuid import uuid4

import attrs
import msgspec

from app.intake.events import PREFIX
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskRefusedError, ZendeskShapeError
from app.zendesk.items import as_object
from app.zendesk.template import TEMPLATE
from app.zendesk.triggers import CALLS_WEBHOOK, FOR_TRIGGERS, Trigger
from app.zendesk.webhooks import Webhook

NAME = "Mailroom"
TITLE = "Emails of customers to Mailroom"
# Whatever an end user sends by email, a new ticket or an answer: channel 4 is email, and 21 what
# was suspended and is recovered.
# https://developer.zendesk.com/documentation/ticketing/reference-guides/conditions-reference/
# https://developer.zendesk.com/documentation/ticketing/reference-guides/via-types
_FROM_CUSTOMERS = {"field": "role", "operator": "is", "value": "end_user"}
_BY_EMAIL, _RECOVERED = (
    {"field": "current_via_id", "operator": "is", "value": value} for value in ("4", "21")
)
CONDITIONS = {"all": [_FROM_CUSTOMERS], "any": [_BY_EMAIL, _RECOVERED]}
# Where Zendesk takes no condition on the other, its emails are found by their tickets.
CONDITIONS_OF_EMAIL_ALONE = {"all": [_BY_EMAIL, _FROM_CUSTOMERS], "any": []}
RIGHT_WEBHOOK = {"status": "active", "http_method": "POST", "request_format": "json"}

# An event that is no email: it is verified, answered 200 and counted, and nothing is stored.
TEST_EVENT = f"{PREFIX}mailroom.test"


@attrs.frozen
class TestAnswer:
    """What Mailroom answered to a test of Zendesk's."""

    status: int | None
    body: str


async def create_webhook(client: ZendeskClient, endpoint: str) -> str:
    """Make the webhook. Returns its id.

    Raises:
        ZendeskError: the class says why.
    """
    webhook = {
        "name": NAME,
        "endpoint": endpoint,
        "subscriptions": [FOR_TRIGGERS],
        **RIGHT_WEBHOOK,
    }
    content = await client.ask(HTTPMethod.POST, "/api/v2/webhooks", content={"webhook": webhook})
    made = as_object(as_object(content).get("webhook")).get("id")
    if not isinstance(made, str):
        raise ZendeskShapeError("Zendesk's API does not tell the id of the webhook it made")
    return made


async def change_webhook(client: ZendeskClient, webhook_id: str, fields: dict[str, str]) -> None:
    """Change some fields of a webhook.

    Raises:
        ZendeskError: the class says why.
    """
    path = f"/api/v2/webhooks/{webhook_id}"
    await client.ask(HTTPMethod.PATCH, path, content={"webhook": fields})


async def create_trigger(client: ZendeskClient, webhook_id: str) -> None:
    """Make the trigger that calls a webhook.

    Raises:
        ZendeskError: the class says why.
    """
    trigger = {
        "title": TITLE,
        "active": True,
        "conditions": CONDITIONS,
        "actions": [{"field": CALLS_WEBHOOK, "value": [webhook_id, TEMPLATE]}],
    }
    try:
        await client.ask(HTTPMethod.POST, "/api/v2/triggers", content={"trigger": trigger})
    except ZendeskRefusedError:
        trigger["conditions"] = CONDITIONS_OF_EMAIL_ALONE
        await client.ask(HTTPMethod.POST, "/api/v2/triggers", content={"trigger": trigger})


async def activate_trigger(client: ZendeskClient, trigger: Trigger) -> None:
    """Switch a trigger on.

    Raises:
        ZendeskError: the class says why.
    """
    await _change_trigger(client, trigger, {"active": True})


async def change_template(client: ZendeskClient, trigger: Trigger, webhook_id: str) -> None:
    """Put our template in the place of a trigger's own; its other actions stay.

    Raises:
        ZendeskError: the class says why.
    """
    actions = [
        {"field": action.field, "value": [webhook_id, TEMPLATE]}
        if action.field == CALLS_WEBHOOK and template_of(action.value, webhook_id) is not None
        else attrs.asdict(action)
        for action in trigger.actions
    ]
    # Whoever changes actions has to send the conditions, too, or loses them.
    await _change_trigger(
        client, trigger, {"actions": actions, "conditions": trigger.conditions or CONDITIONS}
    )


async def _change_trigger(client: ZendeskClient, trigger: Trigger, fields: dict[str, Any]) -> None:
    path = f"/api/v2/triggers/{trigger.id}"
    await client.ask(HTTPMethod.PUT, path, content={"trigger": fields})


def template_of(value: Any, webhook_id: str) -> str | None:
    """The template of an action that calls a webhook; None for any other action."""
    if isinstance(value, list) and len(value) == 2 and str(value[0]) == webhook_id:
        return str(value[1])
    return None


async def signing_secret(client: ZendeskClient, webhook_id: str) -> str:
    """The secret with which a webhook's calls are signed.

    Raises:
        ZendeskError: the class says why.
    """
    content = await client.get(f"/api/v2/webhooks/{webhook_id}/signing_secret")
    secret = as_object(as_object(content).get("signing_secret")).get("secret")
    if not isinstance(secret, str) or not secret:
        raise ZendeskShapeError("Zendesk's API tells no signing secret")
    return secret


async def send_test(client: ZendeskClient, webhook: Webhook) -> TestAnswer:
    """Have Zendesk call a webhook with a signed event that is no email.

    Raises:
        ZendeskError: the class says why.
    """
    payload = {"type": TEST_EVENT, "id": str(uuid4()), "zendesk_event_version": "2022-11-06"}
    request = {
        "endpoint": webhook.endpoint,
        "http_method": "POST",
        "request_format": "json",
        "payload": msgspec.json.encode(payload).decode(),
    }
    content = await client.ask(
        HTTPMethod.POST,
        "/api/v2/webhooks/test",
        params={"webhook_id": webhook.id},
        content={"request": request},
    )
    answer = as_object(as_object(content).get("response"))
    # Recorded as `status_code`, documented as `status`.
    status = answer.get("status_code", answer.get("status"))
    return TestAnswer(status if isinstance(status, int) else None, str(answer.get("payload", "")))
