"""Triggers, and the search that counts tickets, in the fake's API."""

import re
from datetime import datetime
from typing import Any

from zendesk.account import Account, Webhook
from zendesk.answers import Answer, Asked, Route, page, refused

TRIGGERS = "triggers"


def add_trigger(account: Account, webhook: Webhook, *, active: bool = True) -> dict[str, Any]:
    """A trigger that calls a webhook; what is changed in it is changed in the account."""
    made = {
        "id": account.new_id(),
        "title": "Mail to Mailroom",
        "active": active,
        "conditions": {"all": [{"field": "current_via_id", "operator": "is", "value": "4"}]},
        "actions": [
            {"field": "current_tags", "value": "mailroom"},
            {"field": "notification_webhook", "value": [webhook.id, '{"ticket_id": ...}']},
        ],
    }
    account.parts.setdefault(TRIGGERS, []).append(made)
    return made


def list_triggers(account: Account, asked: Asked) -> Answer:
    found = account.parts.get(TRIGGERS, [])
    return page(asked, "triggers", found, lambda trigger: dict(trigger), lambda t: str(t["id"]))


def count_found(account: Account, asked: Asked) -> Answer:
    match = re.fullmatch(r"type:ticket via:mail created>(\S+Z)", asked.query.get("query", ""))
    if match is None:
        return refused("invalid", "the fake knows this query alone", 422)
    since = datetime.fromisoformat(match[1])
    mails = (t for t in account.tickets.values() if t.channel == "email" and t.created_at > since)
    return Answer(200, {"count": len(list(mails))})


ROUTES = [
    Route.of("GET", r"/triggers", list_triggers),
    Route.of("GET", r"/search/count", count_found),
]
