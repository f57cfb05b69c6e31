"""The first line behind the webhook: calls of it that Zendesk did not record as delivered.

What Zendesk sent and we lost or refused is in its record with headers and payload, signature
included, so it is admitted through the same Intake as if it had come. What Zendesk held back has
no request in its record: its email is found by its ticket, in the second line.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import attrs
import structlog

from app.database.errors import DATABASE_AWAY
from app.errors import MailroomError
from app.intake.intake import Intake
from app.intake.quarantine import Quarantine
from app.models.zendesk_watch import Outcome
from app.settings import Settings
from app.zendesk import cursors, invocation_rows
from app.zendesk.attempts import Attempts
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import (
    ZendeskError,
    ZendeskNotFoundError,
    ZendeskRefusedError,
    ZendeskShapeError,
)
from app.zendesk.own_webhooks import NONE_FOUND, find_own_webhooks
from app.zendesk.webhooks import list_invocations

log = structlog.get_logger(__name__)

# The list is sorted by the end of the last attempt. What ends at one moment may be shown a little
# later, and Zendesk's servers need not agree on the moment.
OVERLAP = timedelta(minutes=15)
LOOKED_INTO_AT_ONCE = 50


class WebhookUnknownError(ZendeskError):
    """There is no webhook of ours in the account; the message says how to mend that."""


@attrs.frozen
class Tally:
    """What a run found."""

    missed: Counter[str]
    """Invocations that Zendesk did not record as delivered, by its word for why."""
    outcomes: Counter[Outcome]
    waiting: int
    """Those that nobody has looked into."""

    def __str__(self) -> str:
        whys = ", ".join(f"{count} {why}" for why, count in sorted(self.missed.items()))
        said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return (
            f"{self.missed.total()} calls not delivered ({whys or 'none'}); "
            f"looked into: {said or 'none'}; waiting: {self.waiting}"
        )


class InvocationLine:
    """Looks through the invocations of our webhooks. Works in the event loop it is made in.

    Args:
        stopping: ends a run soon, in good order.
    """

    def __init__(
        self,
        settings: Settings,
        pool: "asyncpg.Pool[asyncpg.Record]",
        client: ZendeskClient,
        *,
        stopping: asyncio.Event | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._client = client
        self._stopping = stopping or asyncio.Event()

    async def run_once(self, *, start: datetime | None = None, dry_run: bool = False) -> Tally:
        """List what was not delivered since the last run, and look into it.

        Args:
            start: from when on, in the first run of all; else that is now. A webhook that is new
                goes on where others were looked through.
            dry_run: list it, and leave all as it is.

        Raises:
            WebhookUnknownError: Zendesk has no webhook of ours.
            ZendeskError: Zendesk cannot be asked; the next run goes on.
        """
        missed: dict[str, str] = {}
        webhooks = await self._webhooks()
        seen_until = await invocation_rows.seen_until(self._pool)
        begin = seen_until or start or await self._client.now()
        for webhook_id in webhooks:
            missed |= await self._list(webhook_id, begin, dry_run)
        outcomes: Counter[Outcome] = Counter()
        if not dry_run:
            await invocation_rows.let_go(self._pool, webhooks)
            outcomes = await self._look_into_all()
            await invocation_rows.forget(self._pool)
        return Tally(
            Counter(missed.values()), outcomes, await invocation_rows.count_waiting(self._pool)
        )

    async def _webhooks(self) -> Sequence[str]:
        if self._settings.zendesk_webhook_id:
            return [self._settings.zendesk_webhook_id]
        found = await find_own_webhooks(self._client, self._settings)
        if not found:
            raise WebhookUnknownError(NONE_FOUND)
        return [webhook.id for webhook in found]

    async def _list(self, webhook_id: str, start: datetime, dry_run: bool) -> dict[str, str]:
        """Note what was not delivered since the cursor; it moves on when all of that is noted.

        Returns why each was not, by its id.
        """
        name = f"{invocation_rows.CURSOR}{webhook_id}"
        find = cursors.find if dry_run else cursors.begin
        cursor = await find(self._pool, name, start)
        until = cursor.seen_until
        missed: dict[str, str] = {}
        after: str | None = None
        is_repeated = False
        while True:
            try:
                page = await list_invocations(self._client, webhook_id, after)
            except ZendeskNotFoundError as error:
                trouble = (
                    f"Zendesk knows no webhook {webhook_id}: was it deleted, or made anew? Name "
                    "the one in use in MAILROOM_ZENDESK_WEBHOOK_ID. What it missed is looked for "
                    "by ticket"
                )
                await cursors.set_trouble(self._pool, name, trouble)
                raise WebhookUnknownError(trouble) from error
            except ZendeskRefusedError:
                # Its cursor within the list is good for a moment. From the top nothing is missed.
                if after is None or is_repeated:
                    raise
                after, is_repeated = None, True
                continue
            new = [i for i in page.items if i.latest_completed_at > cursor.seen_until - OVERLAP]
            missed |= {i.id: i.status for i in new if not i.is_delivered}
            if not dry_run:
                odd = await cursors.keep_odd(self._pool, "invocation", page.odd)
                await invocation_rows.enlist(self._pool, webhook_id, new)
                await cursors.move(self._pool, name, None, looked_at=len(page.items), odd=odd)
            until = max([until, *(i.latest_completed_at for i in page.items)])
            before, after = after, page.after
            if after is None or (page.items and not new):
                break
            if after == before:
                raise ZendeskShapeError("Zendesk's list of invocations does not get on")
        if not dry_run:
            # Of a time that is yet to come nothing was seen.
            await cursors.end_round(self._pool, name, min(until, datetime.now(UTC)))
        return missed

    async def _look_into_all(self) -> Counter[Outcome]:
        outcomes: Counter[Outcome] = Counter()
        intake = Intake(self._settings, self._pool)
        quarantine = Quarantine(self._settings, self._pool)
        looking = Attempts(self._pool, self._client, intake, quarantine)
        failed: set[str] = set()
        try:
            while not self._stopping.is_set():
                some = await invocation_rows.waiting(self._pool, LOOKED_INTO_AT_ONCE)
                for invocation in some:
                    # Those that were put off before this run have had their turn by then.
                    if self._stopping.is_set() or invocation.id in failed:
                        return outcomes
                    try:
                        outcome = await looking.look_into(invocation)
                    except (MailroomError, *DATABASE_AWAY):
                        raise
                    except Exception:
                        # A defect of ours: the others are not kept waiting for it.
                        log.exception("invocation_not_looked_into", invocation=invocation.id)
                        await invocation_rows.put_off(self._pool, invocation.id)
                        failed.add(invocation.id)
                        outcome = Outcome.WAITING
                    else:
                        if outcome is Outcome.WAITING and invocation.is_put_off:
                            # There is no room still, and the others that were put off need some.
                            return outcomes
                    outcomes[outcome] += 1
                if not some:
                    break
        finally:
            await intake.close()
            await quarantine.close()
        return outcomes
