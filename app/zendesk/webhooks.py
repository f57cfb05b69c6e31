"""What Zendesk knows of its webhooks and of their calls.

https://developer.zendesk.com/api-reference/webhooks/webhooks-api/webhooks/
Each call is an invocation, newest first, and each of its tries an attempt, with the request as it
was sent: there is none where Zendesk itself held it back (throttled, circuit broken).
"""

import attrs

from app.zendesk.client import ZendeskClient
from app.zendesk.items import Moment, Page, read_page

PAGE_SIZE = "100"


@attrs.frozen
class Webhook:
    """A webhook of the account."""

    id: str
    endpoint: str = ""
    name: str = ""
    status: str = ""
    """`active` or `inactive`."""
    subscriptions: list[str] = attrs.field(factory=list)
    http_method: str = ""
    request_format: str = ""


@attrs.frozen
class Invocation:
    """One call of a webhook, over all its attempts."""

    id: str
    status: str
    latest_completed_at: Moment
    status_code: int | None = None
    """What the receiver answered; None where no request was answered."""

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver said that it has it."""
        return self.status_code is not None and 200 <= self.status_code < 300


@attrs.frozen
class Header:
    """A header of a recorded request."""

    key: str
    value: str


@attrs.frozen
class Request:
    """A request that Zendesk sent, as it recorded it."""

    headers: list[Header] = attrs.field(factory=list)
    payload: str | None = None


@attrs.frozen
class Attempt:
    """One try of an invocation."""

    invocation_id: str
    status: str
    completed_at: Moment
    status_code: int | None = None
    request: Request | None = None
    """None where it was not sent."""

    @property
    def headers(self) -> dict[str, str]:
        """Those of the request, by their names in lower case."""
        found = self.request.headers if self.request else []
        return {header.key.lower(): header.value for header in found}


async def list_webhooks(client: ZendeskClient, after: str | None = None) -> Page[Webhook]:
    """A page of the account's webhooks.

    Raises:
        ZendeskError: the class says why.
    """
    return read_page(await client.get("/api/v2/webhooks", _page(after)), "webhooks", Webhook)


async def list_invocations(
    client: ZendeskClient, webhook_id: str, after: str | None = None
) -> Page[Invocation]:
    """A page of a webhook's invocations, the newest first.

    Raises:
        ZendeskNotFoundError: there is no such webhook.
        ZendeskError: the class says why.
    """
    path = f"/api/v2/webhooks/{webhook_id}/invocations"
    return read_page(await client.get(path, _page(after)), "invocations", Invocation)


async def list_attempts(
    client: ZendeskClient, webhook_id: str, invocation_id: str
) -> Page[Attempt]:
    """The attempts of an invocation.

    Raises:
        ZendeskNotFoundError: Zendesk knows the invocation no longer.
        ZendeskError: the class says why.
    """
    path = f"/api/v2/webhooks/{webhook_id}/invocations/{invocation_id}/attempts"
    return read_page(await client.get(path), "attempts", Attempt)


def _page(after: str | None) -> dict[str, str]:
    return {"page[size]": PAGE_SIZE, **({"page[after]": after} if after else {})}
