"""How the fake delivers: a trigger renders a payload, a webhook is called, and what became of the
call is recorded as Zendesk records it. `Faults` says how often what goes wrong.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import Any

import attrs
import httpx

from app.intake.intake import Intake
from app.intake.refused import RefusedError
from app.intake.signature import sign
from app.telemetry.request_id import uuid7
from zendesk.account import Account, Attempt, Comment, Invocation, Ticket, Webhook
from zendesk.answers import when

# What a receiver answers: a status, or None where it cannot be reached.
Receiver = Callable[[bytes, dict[str, str]], Awaitable[int | None]]

# https://developer.zendesk.com/documentation/webhooks/
MOST_TRIES = {409: 4, 429: 4, 503: 4, None: 6}


@attrs.define
class Faults:
    """The share of deliveries to which each of these happens."""

    drop: float = 0.0
    """Nothing is sent, and nothing recorded."""
    throttle: float = 0.0
    circuit: float = 0.0
    """Held back, and recorded without a request."""
    double: float = 0.0
    """Sent a second time."""
    lose_answer: float = 0.0
    """It came, and Zendesk never learns so: it is recorded as failed."""
    refuse: float = 0.0
    """Something on the way answers 403, as a firewall does; the receiver sees nothing."""
    delay: float = 0.0
    """Sent at the next `flush`, in any order."""


@attrs.define
class Delivery:
    """Delivers an account's emails through one of its webhooks."""

    account: Account
    webhook: Webhook
    receiver: Receiver
    faults: Faults = attrs.field(factory=Faults)
    random: Random = attrs.field(factory=lambda: Random(1))
    has_trigger: bool = True
    """Else nothing is sent for any email, as when somebody switched the trigger off."""
    render: Callable[[Ticket, Comment], bytes] | None = None
    """In place of our own template."""
    late: list[tuple[Invocation, bytes]] = attrs.field(factory=list)

    async def mail(self, sender: str, text: str, **fields: Any) -> tuple[Ticket, Comment]:
        """An email comes to the account, and is delivered, or not."""
        ticket, comment = self.account.mail(sender, text, **fields)
        await self.fire(ticket, comment)
        return ticket, comment

    async def fire(self, ticket: Ticket, comment: Comment) -> None:
        """What the trigger does about a new comment."""
        if not self.has_trigger or self.webhook.status != "active" or self._hits("drop"):
            return
        now = self.account.now
        invocation = Invocation(self.account.new_ulid(), "pending", now)
        body = (self.render or render)(ticket, comment)
        self.webhook.invocations.append(invocation)
        for fault, status in (("throttle", "throttled"), ("circuit", "circuit broken")):
            if self._hits(fault):
                invocation.status = status
                invocation.attempts.append(Attempt(status, now))
                return
        if self._hits("delay"):
            self.late.append((invocation, body))
            return
        await self._send(invocation, body)

    async def flush(self) -> None:
        """Send what was delayed, in any order."""
        late, self.late = self.late, []
        self.random.shuffle(late)
        for invocation, body in late:
            await self._send(invocation, body)

    async def _send(self, invocation: Invocation, body: bytes) -> None:
        for _ in range(2 if self._hits("double") else 1):
            is_lost = self._hits("lose_answer")
            is_refused = self._hits("refuse")
            tries = 0
            while True:
                tries += 1
                status = await self._try(invocation, body, is_lost, is_refused)
                if status is not None and status < 300:
                    break
                if tries >= (1 if is_refused else MOST_TRIES.get(status, 1)):
                    break
        last = invocation.attempts[-1]
        invocation.status, invocation.status_code = last.status, last.status_code
        invocation.completed_at = last.completed_at

    async def _try(
        self, invocation: Invocation, body: bytes, is_lost: bool, is_refused: bool
    ) -> int | None:
        now = self.account.now
        timestamp = when(now)
        headers = {
            "X-Zendesk-Webhook-Signature-Timestamp": timestamp,
            "X-Zendesk-Webhook-Signature": sign(self.webhook.secret, timestamp, body),
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Zendesk Webhook",
            "X-Zendesk-Account-Id": "18525119",
            "X-Zendesk-Webhook-Id": self.webhook.id,
            "X-Zendesk-Webhook-Invocation-Id": invocation.id,
        }
        status = 403 if is_refused else await self.receiver(body, headers)
        if is_lost:
            status = None
        is_success = status is not None and status < 300
        invocation.attempts.append(
            Attempt(
                "succeeded" if is_success else "terminated",
                now + timedelta(seconds=1),
                status,
                body.decode(),
                headers,
            )
        )
        return status

    def _hits(self, fault: str) -> bool:
        return self.random.random() < getattr(self.faults, fault)


def render(ticket: Ticket, comment: Comment) -> bytes:
    """A payload as our own trigger makes it, of placeholders that need no escaping."""
    files = [{"filename": a["file_name"], "url": a["content_url"]} for a in comment.attachments]
    payload = {
        "ticket_id": str(ticket.id),
        "from_email": comment.author.email or ticket.requester.email,
        "from_name": comment.author.name or ticket.requester.name,
        "subject": ticket.subject,
        "body_text": comment.body,
        # As `created_at_with_timestamp`: the ticket's, to the minute.
        "received_at": ticket.created_at.strftime("%Y-%m-%dT%H:%M:00Z"),
        "attachments": files,
    }
    return json.dumps(payload, indent=3).encode()


def http_receiver(client: httpx.AsyncClient, url: str) -> Receiver:
    """A receiver that listens at a URL."""

    async def receive(body: bytes, headers: dict[str, str]) -> int | None:
        try:
            return (await client.post(url, content=body, headers=headers)).status_code
        except httpx.HTTPError:
            return None

    return receive


def intake_receiver(intake: Intake) -> Receiver:
    """A receiver that is an Intake itself, with the answers of the webhook route."""

    async def receive(body: bytes, headers: dict[str, str]) -> int | None:
        try:
            await intake.admit(
                body,
                email_id=uuid7(),
                signature=headers["X-Zendesk-Webhook-Signature"],
                timestamp=headers["X-Zendesk-Webhook-Signature-Timestamp"],
                invocation_id=headers["X-Zendesk-Webhook-Invocation-Id"],
                content_type=headers["Content-Type"],
            )
        except RefusedError as error:
            return error.status
        return 200

    return receive
