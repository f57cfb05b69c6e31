"""Tickets, comments, audits and users in the fake's API."""

from datetime import UTC, datetime, timedelta
from typing import Any

from zendesk.account import EMAIL, Account, Comment, Ticket, User
from zendesk.answers import (
    BASE,
    NOT_FOUND,
    Answer,
    Asked,
    Route,
    from_cursor,
    page,
    refused,
    to_cursor,
    when,
)

EXPORTED_AT_ONCE = 1_000
# What Zendesk leaves out of exports on purpose.
LEFT_OUT = timedelta(minutes=1)


def export(account: Account, asked: Asked) -> Answer:
    """The incremental export of tickets, by cursor."""
    size = int(account.parts.get("export size", asked.query.get("per_page", EXPORTED_AT_ONCE)))
    if cursor := asked.query.get("cursor"):
        try:
            seconds, _, number, _ = from_cursor(cursor).split("|")
            after = (float(seconds), int(number or 0))
        except ValueError:
            return refused("InvalidCursor", "cursor is not valid", 400)
        if after[0] < account.parts.get("oldest_cursor", 0.0):
            return refused("InvalidCursor", "cursor is too old", 400)
    elif (start := asked.query.get("start_time", "")).isdigit():
        after = (float(start), -1)
    else:
        return refused("InvalidValue", "Parameter start_time must be an integer", 400)
    until = account.parts.get("exported_until", account.now - LEFT_OUT).timestamp()
    changed = sorted(
        (place, ticket)
        for ticket in account.tickets.values()
        if after < (place := _place(ticket)) and place[0] <= until
    )
    shown = changed[:size]
    last = shown[-1][0] if shown else after
    following = to_cursor(f"{last[0]:.1f}||{max(last[1], 0)}|")
    return Answer(
        200,
        {
            "tickets": [show_ticket(ticket, is_exported=True) for _, ticket in shown],
            "after_url": f"{BASE}/api/v2/incremental/tickets/cursor.json?cursor={following}",
            "before_url": None,
            "after_cursor": following,
            "before_cursor": None,
            "end_of_stream": len(shown) == len(changed),
        },
    )


def _place(ticket: Ticket) -> tuple[float, int]:
    return float(int(ticket.changed_at.timestamp())), ticket.id


def _find(account: Account, asked: Asked) -> Ticket | None:
    """The ticket that is asked for, unless it is in the trash."""
    ticket = account.tickets.get(int(asked.found["id"]))
    return None if ticket is None or ticket.status == "deleted" else ticket


def one_ticket(account: Account, asked: Asked) -> Answer:
    ticket = _find(account, asked)
    return NOT_FOUND if ticket is None else Answer(200, {"ticket": show_ticket(ticket)})


def comments(account: Account, asked: Asked) -> Answer:
    ticket = _find(account, asked)
    if ticket is None:
        return NOT_FOUND
    is_newest_first = asked.query.get("sort", "created_at").startswith("-")
    found = sorted(ticket.comments, key=lambda c: (c.created_at, c.id), reverse=is_newest_first)
    answer = page(asked, "comments", found, show_comment, lambda c: str(c.id))
    if answer.status == 200 and asked.query.get("include") == "users":
        authors = {comment.author.id: comment.author for comment in found}
        answer.content["users"] = [show_user(account, user) for user in authors.values()]
    return answer


def audits(account: Account, asked: Asked) -> Answer:
    ticket = _find(account, asked)
    if ticket is None:
        return NOT_FOUND
    return page(
        asked,
        "audits",
        ticket.comments,
        lambda comment: show_audit(account, ticket, comment),
        lambda comment: str(comment.audit_id),
    )


def one_user(account: Account, asked: Asked) -> Answer:
    user = account.users.get(int(asked.found["id"]))
    return NOT_FOUND if user is None else Answer(200, {"user": show_user(account, user)})


def own_user(account: Account, asked: Asked) -> Answer:
    return Answer(200, {"user": show_user(account, User(1, "Agent", EMAIL, "admin"))})


def show_via(channel: str, sender: dict[str, Any], *, of_ticket: bool = False) -> dict[str, Any]:
    to = {"name": "Support", "address": "support@example.zendesk.com"}
    is_mail = channel == "email"
    shown = {"from": sender if is_mail else {}, "to": to if is_mail else {}, "rel": None}
    return {"channel": channel, "source": shown}


def show_ticket(ticket: Ticket, *, is_exported: bool = False) -> dict[str, Any]:
    first = ticket.comments[0] if ticket.comments else None
    shown = {
        "url": f"{BASE}/api/v2/tickets/{ticket.id}.json",
        "id": ticket.id,
        "external_id": None,
        "via": show_via(ticket.channel, first.sender if first else {}),
        "created_at": when(ticket.created_at),
        "updated_at": when(ticket.changed_at),
        "type": None,
        "subject": ticket.subject,
        "raw_subject": ticket.subject,
        "description": first.body if first else "",
        "priority": None,
        "status": ticket.status,
        "recipient": None,
        "requester_id": ticket.requester.id,
        "submitter_id": ticket.requester.id,
        "assignee_id": None,
        "organization_id": None,
        "group_id": None,
        "collaborator_ids": [],
        "follower_ids": [],
        "email_cc_ids": [],
        "forum_topic_id": None,
        "problem_id": None,
        "has_incidents": False,
        "is_public": True,
        "due_at": None,
        "tags": [],
        "custom_fields": [],
        "satisfaction_rating": None,
        "sharing_agreement_ids": [],
        "custom_status_id": 6130830355738,
        "fields": [],
        "followup_ids": [],
        "ticket_form_id": 6130830344474,
        "brand_id": 6130830354842,
        "allow_channelback": False,
        "allow_attachments": True,
        "from_messaging_channel": False,
    }
    if is_exported:
        shown["generated_timestamp"] = int(ticket.changed_at.timestamp())
    return shown


def show_comment(comment: Comment) -> dict[str, Any]:
    return {
        "id": comment.id,
        "type": "Comment",
        "author_id": comment.author.id,
        "body": comment.body,
        "html_body": comment.html_body,
        "plain_body": comment.body,
        "public": comment.public,
        "attachments": comment.attachments,
        "audit_id": comment.audit_id,
        "via": show_via(comment.channel, comment.sender),
        "created_at": when(comment.created_at),
        "metadata": {"system": {}, "custom": {}},
    }


def show_audit(account: Account, ticket: Ticket, comment: Comment) -> dict[str, Any]:
    sender = account.parts.get("audit senders", {}).get(comment.audit_id, comment.sender)
    event = {k: v for k, v in show_comment(comment).items() if k not in _NOT_IN_EVENTS}
    return {
        "id": comment.audit_id,
        "ticket_id": ticket.id,
        "created_at": when(comment.created_at),
        "author_id": comment.author.id,
        "metadata": {"system": {}, "custom": {}},
        "events": [event],
        "via": show_via(comment.channel, sender),
    }


_NOT_IN_EVENTS = ("via", "created_at", "metadata")


def show_user(account: Account, user: User) -> dict[str, Any]:
    made_at = when(datetime.fromtimestamp(account.started_at.timestamp(), UTC))
    return {
        "id": user.id,
        "url": f"{BASE}/api/v2/users/{user.id}.json",
        "name": user.name,
        "email": user.email,
        "created_at": made_at,
        "updated_at": made_at,
        "time_zone": "Berlin",
        "iana_time_zone": "Europe/Berlin",
        "phone": None,
        "shared_phone_number": None,
        "photo": None,
        "locale_id": 1,
        "locale": "en-US",
        "organization_id": None,
        "role": user.role,
        "verified": True,
        "external_id": None,
        "tags": [],
        "alias": None,
        "active": True,
        "shared": False,
        "shared_agent": False,
        "last_login_at": made_at,
        "two_factor_auth_enabled": None,
        "signature": None,
        "details": None,
        "notes": None,
        "role_type": 4,
        "custom_role_id": None,
        "moderator": False,
        "ticket_restriction": None,
        "only_private_comments": False,
        "restricted_agent": False,
        "suspended": False,
        "default_group_id": None,
        "report_csv": False,
        "user_fields": {},
    }


ROUTES = [
    Route.of("GET", r"/incremental/tickets/cursor", export),
    Route.of("GET", r"/tickets/(?P<id>\d+)", one_ticket),
    Route.of("GET", r"/tickets/(?P<id>\d+)/comments", comments),
    Route.of("GET", r"/tickets/(?P<id>\d+)/audits", audits),
    Route.of("GET", r"/users/me", own_user),
    Route.of("GET", r"/users/(?P<id>\d+)", one_user),
]
