"""What is made and changed in the fake's API: webhooks, triggers, and Zendesk's own test."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from app.intake.signature import sign
from zendesk.account import Account
from zendesk.answers import NOT_FOUND, Answer, Asked, Route, refused, when
from zendesk.rules_api import TRIGGERS
from zendesk.webhooks_api import show_webhook

RECEIVER = "receiver"
"""The name in `Account.parts` of what stands for the network: takes an address, a body and headers,
and gives the status and the body of the answer."""
REFUSED_VALUES = "refused values"
"""The name of what no condition of a trigger may have."""
Receiver = Callable[[str, bytes, dict[str, str]], tuple[int, str]]

NEEDED = {"name", "endpoint", "http_method", "request_format", "status"}


def create_webhook(account: Account, asked: Asked) -> Answer:
    given = asked.content["webhook"]
    if not given.keys() >= NEEDED:
        return refused("InvalidWebhook", "fields are missing", 400)
    webhook = account.add_webhook(given["endpoint"], secret=f"secret of {account.new_ulid()}")
    _change(webhook, given)
    return Answer(201, {"webhook": show_webhook(webhook)})


def patch_webhook(account: Account, asked: Asked) -> Answer:
    webhook = account.webhooks.get(asked.found["id"])
    if webhook is None:
        return NOT_FOUND
    _change(webhook, asked.content["webhook"])
    return Answer(204)


def _change(webhook: Any, given: dict[str, Any]) -> None:
    for name, value in given.items():
        if name in ("name", "endpoint", "status"):
            setattr(webhook, name, value)
        else:
            webhook.further[name] = value


def create_trigger(account: Account, asked: Asked) -> Answer:
    given = asked.content["trigger"]
    values = [c["value"] for some in given["conditions"].values() for c in some]
    if not account.parts.get(REFUSED_VALUES, set()).isdisjoint(values):
        return refused("RecordInvalid", "a condition has a value that is none", 422)
    made = {"id": account.new_id(), "active": True, **given}
    account.parts.setdefault(TRIGGERS, []).append(made)
    return Answer(201, {"trigger": made})


def change_trigger(account: Account, asked: Asked) -> Answer:
    for trigger in account.parts.get(TRIGGERS, []):
        if str(trigger["id"]) == asked.found["id"]:
            given = asked.content["trigger"]
            if "actions" in given or "conditions" in given:
                # As documented: whoever changes one of the two and does not send both loses it.
                given = {"actions": [], "conditions": {"all": [], "any": []}, **given}
            trigger.update(given)
            return Answer(200, {"trigger": trigger})
    return NOT_FOUND


def send_test(account: Account, asked: Asked) -> Answer:
    webhook = account.webhooks.get(asked.query.get("webhook_id", ""))
    if webhook is None:
        return NOT_FOUND
    request = asked.content["request"]
    body, timestamp = request["payload"].encode(), when(datetime.now(UTC))
    headers = {
        "X-Zendesk-Webhook-Signature": sign(webhook.secret, timestamp, body),
        "X-Zendesk-Webhook-Signature-Timestamp": timestamp,
        "Content-Type": "application/json; charset=utf-8",
        "X-Zendesk-Webhook-Id": webhook.id,
    }
    receiver: Receiver | None = account.parts.get(RECEIVER)
    status, payload = receiver(request["endpoint"], body, headers) if receiver else (502, "")
    shown = {"headers": [], "status_code": status, "payload": payload}
    return Answer(200, {"response": shown})


ROUTES = [
    Route.of("POST", r"/webhooks", create_webhook),
    Route.of("POST", r"/webhooks/test", send_test),
    Route.of("PATCH", r"/webhooks/(?P<id>\w+)", patch_webhook),
    Route.of("POST", r"/triggers", create_trigger),
    Route.of("PUT", r"/triggers/(?P<id>\w+)", change_trigger),
]
