"""Random histories of an account whose deliveries go wrong in every way, that suspends mail, with
Mailroom down for an hour and the trigger lost for another: after two rounds of each line every
email is here once.

`--gap-emails 50000` is the long form, and `--backfill-tickets 100000` that of a backfill; a failure
names its seed.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http import HTTPMethod
from random import Random
from typing import Any

import asyncpg
import pytest
from support import make_settings
from zendesk.account import WEBHOOK_SECRET, Account, Comment, Ticket
from zendesk.delivery import Delivery, Faults, Receiver, intake_receiver
from zendesk.server import LIMITS, FakeApi, running_api
from zendesk.suspended_api import suspend, suspended

from app.intake.intake import Intake
from app.intake.signature import sign
from app.jobs.chores import ChoreContext
from app.settings import Settings, parse_secrets
from app.zendesk.backfill import backfill
from app.zendesk.client import ZendeskClient
from app.zendesk.invocations import InvocationLine
from app.zendesk.ticket_line import TicketLine

Pool = asyncpg.Pool

ENDPOINT = "https://mail.example.com/api/v1/zendesk/webhook"
LENGTH = timedelta(hours=6)
FAULTS = Faults(
    drop=0.08, throttle=0.08, circuit=0.05, double=0.06, lose_answer=0.05, refuse=0.08, delay=0.1
)
# What people write again and again.
SHORT = ("Danke", "ok", "ping", "", "Ja bitte")
AT_ONCE = 20


class Clock:
    """The account's time, which passes as emails come."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) - LENGTH - timedelta(minutes=5)

    def __call__(self) -> datetime:
        return self.now


class History:
    """One account's six hours."""

    def __init__(self, account: Account, clock: Clock, receiver: Receiver, seed: int) -> None:
        self.account = account
        self.clock = clock
        self.begin = clock.now
        self.random = Random(seed)
        self.is_down = False

        async def receive(body: bytes, headers: dict[str, str]) -> int | None:
            return None if self.is_down else await receiver(body, headers)

        self.delivery = Delivery(
            account, account.add_webhook(ENDPOINT), receive, FAULTS, Random(seed + 1)
        )

    async def go_on(self, emails: int, *, of: int) -> None:
        """So many more emails come, of so many in all."""
        agent = self.account.add_user("agent@example.com", role="agent")
        tickets = [*self.account.tickets.values()]
        fired: list[tuple[Ticket, Comment]] = []
        for number in range(emails):
            self.clock.now += LENGTH / of
            hour = (self.clock.now - self.begin) // timedelta(hours=1)
            self.is_down, self.delivery.has_trigger = hour == 2, hour != 4
            choice = self.random.random()
            if choice > 0.97:
                suspend(self.account, f"{choice}@example.com", f"Rechnung {choice}")
                continue
            if tickets and choice < 0.1:
                self.account.add_comment(self.random.choice(tickets), agent, "Antwort")
            ticket = self.random.choice(tickets) if tickets and choice < 0.5 else None
            text = (
                self.random.choice(SHORT)
                if self.random.random() < 0.2
                else f"Brief {number} {self.random.random()}"
            )
            sender = ticket.requester.email if ticket else f"{self.random.random()}@example.com"
            made = self.account.mail(sender or "", text, ticket=ticket)
            tickets.append(made[0])
            fired.append(made)
            if len(fired) == AT_ONCE:
                await asyncio.gather(*(self.delivery.fire(*one) for one in fired))
                fired = []
            if self.random.random() < 0.02:
                await self.delivery.flush()
        await asyncio.gather(*(self.delivery.fire(*one) for one in fired))

    def held(self) -> Counter[tuple[str, str]]:
        """The emails that the account holds, by ticket and text."""
        return Counter(
            (str(ticket.id), comment.body)
            for ticket in self.account.tickets.values()
            for comment in ticket.comments
            if comment.author.role == "end-user"
        )


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with running_api(Account(clock=Clock())) as api:
        api.unlimited()
        yield api


@pytest.fixture
def settings(api: FakeApi) -> Settings:
    return make_settings(
        **api.settings,
        zendesk_share=1.0,
        zendesk_exports_per_minute=100_000,
        webhook_secrets=parse_secrets(WEBHOOK_SECRET),
        intake_deadline_seconds=60.0,
    )


@pytest.mark.long
async def test_after_two_rounds_of_each_line_every_email_is_here_once(
    pool: "Pool[asyncpg.Record]",
    api: FakeApi,
    settings: Settings,
    request: pytest.FixtureRequest,
    record_property: Any,
) -> None:
    seed = Random().randrange(1_000_000)
    record_property("seed of the account with gaps", seed)
    count = request.config.getoption("--gap-emails")
    clock = api.account.clock
    assert isinstance(clock, Clock)
    intake = Intake(settings, pool)
    history = History(api.account, clock, intake_receiver(intake), seed)
    client = ZendeskClient(settings)
    start = clock.now - timedelta(minutes=1)

    async def round_of_each() -> None:
        await InvocationLine(settings, pool, client).run_once(start=start)
        await TicketLine(settings, pool, client).run_once(start=start)

    # Rounds go on while emails come, and delayed webhooks come after a round that missed them.
    for part in range(4):
        rounds = [round_of_each()] if part else []
        await asyncio.gather(history.go_on(count // 4, of=count), *rounds)
    await round_of_each()
    await history.delivery.flush()
    # What was suspended becomes tickets, for which no trigger fires here.
    for number in [*suspended(api.account)]:
        recover = "/api/v2/suspended_tickets/recover_many"
        await client.ask(HTTPMethod.PUT, recover, params={"ids": str(number)})
    clock.now += timedelta(minutes=2)
    await round_of_each()
    await intake.close()
    await client.close()

    rows = await pool.fetch(
        "SELECT zendesk_ticket_id, raw_body_text, origin, delivery_signature, raw_payload::text,"
        " zendesk_comment_id FROM incoming_emails"
    )
    here = Counter((row["zendesk_ticket_id"], row["raw_body_text"] or "") for row in rows)
    assert here == history.held(), f"seed {seed}"
    assert len({row["zendesk_comment_id"] for row in rows}) == len(rows)
    by_signature = {
        attempt.headers["X-Zendesk-Webhook-Signature"]: attempt
        for invocation in history.delivery.webhook.invocations
        for attempt in invocation.attempts
        if attempt.payload is not None
    }
    for row in rows:
        if row["origin"] != "backfill":
            attempt = by_signature[row["delivery_signature"]]
            body = row["raw_payload"].encode()
            timestamp = attempt.headers["X-Zendesk-Webhook-Signature-Timestamp"]
            assert sign(WEBHOOK_SECRET, timestamp, body) == row["delivery_signature"]
    origins = Counter(row["origin"] for row in rows)
    record_property("origins", dict(origins))
    assert {"webhook", "recovered", "backfill"} <= origins.keys()


@pytest.mark.long
async def test_a_backfill_of_many_tickets_keeps_within_the_rate_limit(
    pool: "Pool[asyncpg.Record]", api: FakeApi, request: pytest.FixtureRequest
) -> None:
    count = request.config.getoption("--backfill-tickets")
    clock = api.account.clock
    assert isinstance(clock, Clock)
    since = clock.now - timedelta(minutes=1)
    for number in range(count):
        clock.now += LENGTH / count
        api.account.mail(f"{number}@example.com", f"Brief {number}")
    clock.now += timedelta(minutes=2)
    # Zendesk's own limits as long as the backfill fits in a minute; else they are scaled.
    scale = max(1, count // 300)
    api.limits = {name: limit * scale for name, limit in LIMITS.items()}
    settings = make_settings(
        **api.settings, zendesk_share=0.5, zendesk_exports_per_minute=8 * scale
    )
    notes: list[str] = []

    async def note(text: str) -> None:
        notes.append(text)

    context = ChoreContext(pool, asyncio.Event(), note)
    told = await backfill(settings, context, since)
    assert told == f"{count} tickets, {count} compared, {count} emails missing"
    assert await pool.fetchval("SELECT count(*) FROM incoming_emails") == count
    # One a ticket, and the export's pages; none of them was one too many.
    assert len(api.asked_for("/comments")) == count
    assert api.too_many == 0
