"""What a fake Zendesk account holds: users, tickets with their comments, webhooks with what became
of their calls. Mail comes in by `mail`; how it is delivered is the business of `delivery`, and how
the API shows it that of the `*_api` modules.
"""

import base64
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

EMAIL = "agent@example.com"
TOKEN = "token-of-the-zendesk-api"
AUTHORIZATION = "Basic " + base64.b64encode(f"{EMAIL}/token:{TOKEN}".encode()).decode()
WEBHOOK_SECRET = "a signing secret of the fake account"
WEBHOOK_PATH = "/api/v1/zendesk/webhook"

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@attrs.define
class User:
    id: int
    name: str
    email: str | None
    role: str = "end-user"


@attrs.define
class Comment:
    id: int
    audit_id: int
    author: User
    body: str
    html_body: str
    created_at: datetime
    channel: str = "email"
    public: bool = True
    sender: dict[str, Any] = attrs.field(factory=dict)
    """As `via.source.from`."""
    attachments: list[dict[str, Any]] = attrs.field(factory=list)


@attrs.define
class Ticket:
    id: int
    subject: str
    requester: User
    created_at: datetime
    changed_at: datetime
    """When it was last changed, by which exports are sorted."""
    channel: str = "email"
    status: str = "new"
    comments: list[Comment] = attrs.field(factory=list)


@attrs.define
class Attempt:
    """One try of an invocation; without a payload it was not sent."""

    status: str
    completed_at: datetime
    status_code: int | None = None
    payload: str | None = None
    headers: dict[str, str] = attrs.field(factory=dict)
    answer: str = ""


@attrs.define
class Invocation:
    id: str
    status: str
    completed_at: datetime
    status_code: int | None = None
    attempts: list[Attempt] = attrs.field(factory=list)


@attrs.define
class Webhook:
    id: str
    name: str
    endpoint: str
    secret: str
    created_at: datetime
    status: str = "active"
    invocations: list[Invocation] = attrs.field(factory=list)
    further: dict[str, Any] = attrs.field(factory=dict)
    """What else was set by the API."""


@attrs.define
class Account:
    """One account. `now` is its clock, which tests set."""

    started_at: datetime = attrs.field(factory=lambda: datetime.now(UTC))
    offset: timedelta = timedelta()
    clock: Callable[[], datetime] | None = None
    users: dict[int, User] = attrs.field(factory=dict)
    tickets: dict[int, Ticket] = attrs.field(factory=dict)
    webhooks: dict[str, Webhook] = attrs.field(factory=dict)
    parts: dict[str, Any] = attrs.field(factory=dict)
    """What further modules of the fake keep in it, each under its own name."""
    _ids: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(6_130_907_990_000))
    _numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))
    _by_address: dict[str, User] = attrs.field(factory=dict)

    @property
    def now(self) -> datetime:
        """The account's clock."""
        return (self.clock() if self.clock else datetime.now(UTC)) + self.offset

    def new_id(self) -> int:
        return next(self._ids)

    def new_ulid(self) -> str:
        """An id that sorts by time, as those of webhooks and invocations do."""
        number = (int(self.now.timestamp() * 1000) << 80) | next(self._ids)
        return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -5, -5))

    def add_user(self, email: str | None, name: str = "", role: str = "end-user") -> User:
        """The user with this address, made where there is none."""
        known = self._by_address.get(email or "")
        # A test may have taken the address away since.
        if known is not None and known.email == email:
            return known
        user = User(self.new_id(), name or (email or "").partition("@")[0], email, role)
        self.users[user.id] = user
        if email is not None:
            self._by_address[email] = user
        return user

    def add_webhook(self, endpoint: str, *, secret: str = WEBHOOK_SECRET) -> Webhook:
        webhook = Webhook(self.new_ulid(), "Mailroom", endpoint, secret, self.now)
        self.webhooks[webhook.id] = webhook
        return webhook

    def open_ticket(self, requester: User, subject: str, *, channel: str = "email") -> Ticket:
        now = self.now
        ticket = Ticket(next(self._numbers), subject, requester, now, now, channel)
        self.tickets[ticket.id] = ticket
        return ticket

    def add_comment(
        self,
        ticket: Ticket,
        author: User,
        text: str,
        *,
        html: str | None = None,
        channel: str = "email",
        public: bool = True,
        attachments: Sequence[dict[str, Any]] = (),
    ) -> Comment:
        """Somebody writes on a ticket."""
        made = Comment(
            self.new_id(),
            self.new_id(),
            author,
            text,
            html or f'<div class="zd-comment" dir="auto"><p dir="auto">{text}</p></div>',
            self.now,
            channel,
            public,
            {"address": author.email, "name": author.name, "original_recipients": []}
            if channel == "email"
            else {},
            [*attachments],
        )
        ticket.comments.append(made)
        ticket.changed_at = made.created_at
        return made

    def mail(
        self,
        sender: str,
        text: str,
        *,
        subject: str = "Wo bleibt mein Päckchen?",
        ticket: Ticket | None = None,
        html: str | None = None,
        attachments: Sequence[dict[str, Any]] = (),
    ) -> tuple[Ticket, Comment]:
        """An email of an end user comes, and makes a ticket or a comment on one."""
        user = self.add_user(sender)
        ticket = ticket or self.open_ticket(user, subject)
        return ticket, self.add_comment(ticket, user, text, html=html, attachments=attachments)


def attachment(account: Account, name: str, size: int, **fields: Any) -> dict[str, Any]:
    """A file of a comment, as the API shows it."""
    url = f"https://example.zendesk.com/attachments/token/{account.new_ulid()}/?name={name}"
    number = account.new_id()
    return {
        "url": f"https://example.zendesk.com/api/v2/attachments/{number}.json",
        "id": number,
        "file_name": name,
        "content_url": url,
        "mapped_content_url": url,
        "content_type": "application/pdf",
        "size": size,
        "width": None,
        "height": None,
        "inline": False,
        "deleted": False,
        "malware_access_override": False,
        "malware_scan_result": "malware_not_found",
        "thumbnails": [],
        **fields,
    }
