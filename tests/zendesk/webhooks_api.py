"""Webhooks, invocations and attempts in the fake's API."""

from typing import Any

from zendesk.account import Account, Attempt, Invocation, Webhook
from zendesk.answers import NOT_FOUND, Answer, Asked, Route, page, when


def list_webhooks(account: Account, asked: Asked) -> Answer:
    found = sorted(account.webhooks.values(), key=lambda w: w.id, reverse=True)
    return page(asked, "webhooks", found, show_webhook, lambda webhook: str(webhook.id))


def one_webhook(account: Account, asked: Asked) -> Answer:
    webhook = account.webhooks.get(asked.found["id"])
    return NOT_FOUND if webhook is None else Answer(200, {"webhook": show_webhook(webhook)})


def invocations(account: Account, asked: Asked) -> Answer:
    webhook = account.webhooks.get(asked.found["id"])
    if webhook is None:
        return NOT_FOUND
    newest = sorted(webhook.invocations, key=lambda i: (i.completed_at, i.id), reverse=True)
    return page(asked, "invocations", newest, show_invocation, lambda i: str(i.id))


def attempts(account: Account, asked: Asked) -> Answer:
    webhook = account.webhooks.get(asked.found["id"])
    for invocation in webhook.invocations if webhook else []:
        if invocation.id == asked.found["invocation"]:
            shown = [
                show_attempt(asked.found["id"], invocation, attempt)
                for attempt in reversed(invocation.attempts)
            ]
            return Answer(200, {"attempts": shown})
    return NOT_FOUND


def secret(account: Account, asked: Asked) -> Answer:
    webhook = account.webhooks.get(asked.found["id"])
    if webhook is None:
        return NOT_FOUND
    return Answer(200, {"signing_secret": {"secret": webhook.secret, "algorithm": "SHA256"}})


def show_webhook(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "name": webhook.name,
        "status": webhook.status,
        "subscriptions": ["conditional_ticket_events"],
        "created_at": when(webhook.created_at),
        "created_by": "6130907993114",
        "endpoint": webhook.endpoint,
        "http_method": "POST",
        "request_format": "json",
        **webhook.further,
    }


def show_invocation(invocation: Invocation) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": invocation.id}
    if invocation.status_code is not None:
        shown["status_code"] = invocation.status_code
    shown["status"] = invocation.status
    shown["latest_completed_at"] = when(invocation.completed_at)
    return shown


def show_attempt(webhook_id: str, invocation: Invocation, attempt: Attempt) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": webhook_id, "invocation_id": invocation.id}
    if attempt.status_code is not None:
        shown["status_code"] = attempt.status_code
    shown["status"] = attempt.status
    if attempt.payload is not None:
        shown["request"] = {"headers": _headers(attempt.headers), "payload": attempt.payload}
        if attempt.status_code is not None:
            answered = {"Content-Type": "application/json"}
            shown["response"] = {"headers": _headers(answered), "payload": attempt.answer}
    shown["completed_at"] = when(attempt.completed_at)
    return shown


def _headers(headers: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in headers.items()]


ROUTES = [
    Route.of("GET", r"/webhooks", list_webhooks),
    Route.of("GET", r"/webhooks/(?P<id>\w+)", one_webhook),
    Route.of("GET", r"/webhooks/(?P<id>\w+)/invocations", invocations),
    Route.of("GET", r"/webhooks/(?P<id>\w+)/invocations/(?P<invocation>\w+)/attempts", attempts),
    Route.of("GET", r"/webhooks/(?P<id>\w+)/signing_secret", secret),
]
