"""Suspended tickets in the fake's API: in no recording, so their shape is that of Zendesk's page.

https://developer.zendesk.com/api-reference/ticketing/tickets/suspended_tickets/
"""

from datetime import datetime, timedelta
from typing import Any

from zendesk.account import Account
from zendesk.answers import NOT_FOUND, Answer, Asked, Route, page, refused, when

SUSPENDED = "suspended"
STUBBORN = "stubborn"
"""Ids that cannot be recovered."""
KEPT_QUIETLY = "kept quietly"
"""Ids that are not recovered, though no answer says so."""

MOST_IDS = 100
# https://developer.zendesk.com/documentation/ticketing/reference-guides/via-types
RECOVERED = "recovered_from_suspended_tickets"


def suspended(account: Account) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = account.parts.setdefault(SUSPENDED, {})
    return found


def suspend(
    account: Account,
    sender: str,
    subject: str = "Rechnung",
    *,
    cause: tuple[int, str] = (0, "Detected as spam"),
    at: datetime | None = None,
    age: timedelta = timedelta(),
    **fields: Any,
) -> int:
    """A mail comes that the account suspends. Returns its id."""
    number = account.new_id()
    created = (at or account.now) - age
    suspended(account)[number] = {
        "attachments": [],
        "author": {"email": sender, "id": None, "name": sender.partition("@")[0]},
        "brand_id": 123,
        "cause": cause[1],
        "cause_id": cause[0],
        "content": f"Text of {subject}",
        "created_at": when(created),
        "error_messages": None,
        "id": number,
        "message_id": f"<{number}@mail.example.com>",
        "recipient": "support@example.com",
        "subject": subject,
        "ticket_id": None,
        "updated_at": when(created),
        "url": f"https://example.zendesk.com/api/v2/suspended_tickets/{number}.json",
        "via": {
            "channel": "email",
            "source": {
                "from": {"address": sender, "name": sender.partition("@")[0]},
                "rel": None,
                "to": {"address": "support@example.com", "name": "Example"},
            },
        },
        **fields,
    }
    return number


def list_all(account: Account, asked: Asked) -> Answer:
    found = sorted(suspended(account).values(), key=lambda item: item["created_at"])
    return page(asked, "suspended_tickets", found, dict, lambda item: str(item.get("id")))


def show(account: Account, asked: Asked) -> Answer:
    item = suspended(account).get(int(asked.found["id"]))
    return NOT_FOUND if item is None else Answer(200, {"suspended_ticket": item})


def recover_many(account: Account, asked: Asked) -> Answer:
    ids = [int(number) for number in asked.query.get("ids", "").split(",")]
    if len(ids) > MOST_IDS:
        return refused("TooManyValues", "Parameter ids cannot specify more than 100 values", 400)
    made, failed = [], []
    for number in ids:
        item = suspended(account).get(number)
        if item is None or number in account.parts.get(KEPT_QUIETLY, ()):
            continue
        if number in account.parts.get(STUBBORN, ()):
            failed.append(item)
            continue
        del suspended(account)[number]
        ticket, comment = account.mail(
            item["author"]["email"], item["content"], subject=item["subject"]
        )
        ticket.channel = comment.channel = RECOVERED
        made.append({"id": ticket.id, "subject": ticket.subject})
    content: dict[str, Any] = {"tickets": made}
    if failed:
        content["suspended_tickets"] = failed
    return Answer(200, content)


ROUTES = [
    Route.of("GET", r"/suspended_tickets", list_all),
    Route.of("GET", r"/suspended_tickets/(?P<id>\d+)", show),
    Route.of("PUT", r"/suspended_tickets/recover_many", recover_many),
]
