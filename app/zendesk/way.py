"""The way from Zendesk to Mailroom: what of it is there, what is wrong, and what mends it."""

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import msgspec

from app.models.webhook_status import WebhookStatus
from app.settings import Settings
from app.zendesk import changes
from app.zendesk.client import ZendeskClient
from app.zendesk.lint.findings import Weight
from app.zendesk.lint.template import lint_template
from app.zendesk.own_webhooks import find_own_webhooks
from app.zendesk.triggers import CALLS_WEBHOOK, FOR_TRIGGERS, Trigger, list_triggers
from app.zendesk.webhooks import Webhook


@attrs.frozen
class Way:
    """What Zendesk has of it."""

    webhook: Webhook | None
    triggers: list[Trigger]
    """Those that call the webhook, active or not."""
    secret: str | None
    others: int = 0
    """Further webhooks that lead here."""


@attrs.frozen
class Trouble:
    """Something that is not as it should be."""

    text: str
    mend: str
    change: Callable[[ZendeskClient], Awaitable[object]] | None = None
    """What mends it; None where a person has to."""
    is_secret: bool = False
    """The secret is to be stored."""


async def look(client: ZendeskClient, settings: Settings, endpoint: str) -> Way:
    """See what there is.

    Raises:
        ZendeskError: the class says why.
    """
    own = await find_own_webhooks(client, settings)
    if not settings.zendesk_webhook_id:
        own = [webhook for webhook in own if webhook.endpoint.rstrip("/") == endpoint]
    if not own:
        return Way(None, [], None)
    # Of several the first that is active; ids sort by time.
    webhook = min(own, key=lambda one: (one.status != "active", one.id))
    triggers = [one for one in await list_triggers(client) if one.calls({webhook.id})]
    secret = await changes.signing_secret(client, webhook.id)
    return Way(webhook, triggers, secret, others=len(own) - 1)


def troubles(way: Way, settings: Settings, endpoint: str) -> list[Trouble]:
    """What is wrong, in the order in which it is mended."""
    if way.webhook is None:
        if settings.zendesk_webhook_id:
            return [
                Trouble(
                    "Zendesk has no webhook of MAILROOM_ZENDESK_WEBHOOK_ID",
                    "take the setting away, and a webhook is made or found by its address",
                )
            ]
        make = partial(changes.create_webhook, endpoint=endpoint)
        return [Trouble(f"no webhook leads to {endpoint}", "a webhook is made", make)]
    return [
        *_of_webhook(way.webhook, way.others, endpoint),
        *(_of_triggers(way.webhook, way.triggers)),
        *_of_secret(way, settings),
    ]


def judge(answer: changes.TestAnswer) -> Trouble | None:
    """What an answer to Zendesk's test says."""
    if answer.status == 200 and _status_in(answer.body) == WebhookStatus.ACKNOWLEDGED:
        return None
    if answer.status == 401:
        return Trouble(
            "Zendesk's test was answered 401: the running web process does not know the secret",
            "restart `mailroom web` where the secret was stored just now",
        )
    if answer.status == 200:
        return Trouble(
            "Zendesk's test was answered 200, and not by Mailroom",
            "see that the webhook's address and the proxy lead to it",
        )
    said = "not at all" if answer.status is None else str(answer.status)
    return Trouble(
        f"Zendesk's test was answered {said}",
        "see that `mailroom web` runs and can be reached: `mailroom doctor --url` tries it",
    )


def _of_webhook(webhook: Webhook, others: int, endpoint: str) -> list[Trouble]:
    found = []
    wrong = {
        name: right
        for name, right in {**changes.RIGHT_WEBHOOK, "endpoint": endpoint}.items()
        if getattr(webhook, name).rstrip("/") != right
    }
    if wrong:
        told = ", ".join(f"{name} {getattr(webhook, name)!r}" for name in wrong)
        mend = ", ".join(f"{name} is set to {right!r}" for name, right in wrong.items())
        change = partial(changes.change_webhook, webhook_id=webhook.id, fields=wrong)
        found.append(Trouble(f"webhook {webhook.id} has {told}", mend, change))
    if others:
        found.append(
            Trouble(
                f"{others} more webhooks lead to the same address",
                "delete those that nothing calls, or name ours in MAILROOM_ZENDESK_WEBHOOK_ID",
            )
        )
    return found


def _of_triggers(webhook: Webhook, triggers: list[Trigger]) -> list[Trouble]:
    if FOR_TRIGGERS not in webhook.subscriptions:
        # It is subscribed to events, and no trigger can call it.
        return []
    if not triggers:
        make = partial(changes.create_trigger, webhook_id=webhook.id)
        return [Trouble(f"no trigger calls webhook {webhook.id}", "a trigger is made", make)]
    active = [trigger for trigger in triggers if trigger.active]
    found = []
    if not active:
        change = partial(changes.activate_trigger, trigger=triggers[0])
        found.append(Trouble(f"trigger {triggers[0].id} is inactive", "it is switched on", change))
    if len(active) > 1:
        ids = ", ".join(str(trigger.id) for trigger in active)
        found.append(
            Trouble(
                f"{len(active)} active triggers call the webhook ({ids}): what meets the "
                "conditions of two comes twice",
                "see that no email does, or switch one off",
            )
        )
    for trigger in active or triggers[:1]:
        found += _of_template(webhook.id, trigger)
    return found


def _of_template(webhook_id: str, trigger: Trigger) -> list[Trouble]:
    for action in trigger.actions:
        template = changes.template_of(action.value, webhook_id)
        if action.field != CALLS_WEBHOOK or template is None:
            continue
        wrong = [one for one in lint_template(template).findings if one.weight is Weight.WRONG]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            return [
                Trouble(
                    f"the template of trigger {trigger.id} is wrong in line {wrong[0].line}: "
                    f"{wrong[0].message}{more}",
                    "Mailroom's own template takes its place",
                    partial(changes.change_template, trigger=trigger, webhook_id=webhook_id),
                )
            ]
    return []


def _of_secret(way: Way, settings: Settings) -> list[Trouble]:
    if any(secret.secret == way.secret for secret in settings.webhook_secrets):
        return []
    return [
        Trouble(
            "its signing secret is none of MAILROOM_WEBHOOK_SECRETS",
            "it is stored beside those",
            is_secret=True,
        )
    ]


def _status_in(body: str) -> str | None:
    try:
        content = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    return content.get("status") if isinstance(content, dict) else None
