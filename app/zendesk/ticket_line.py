"""The second line behind the webhook: tickets that came by mail, and whether their emails are here.

It goes through the export of tickets in the order of their changes. What is missing of a ticket
becomes an email made from its comment. The cursor moves on when all tickets of a page were seen to,
so who was killed is followed by another who goes on with that page.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import attrs
import structlog

from app.attachments.hosts import own_hosts
from app.intake.comments import CommentsReadBeforeError, Missing, admit_missing
from app.settings import Settings
from app.zendesk import cursors, unseen_tickets
from app.zendesk.client import AT_ONCE, ZendeskClient
from app.zendesk.clocks import allowed
from app.zendesk.cursors import Cursor
from app.zendesk.errors import (
    ZendeskAwayError,
    ZendeskBusyError,
    ZendeskError,
    ZendeskForbiddenError,
    ZendeskNotFoundError,
    ZendeskRefusedError,
    ZendeskShapeError,
)
from app.zendesk.ticket_comments import Told, read_comments
from app.zendesk.tickets import DELETED, Exported, Ticket, export_tickets, get_ticket
from app.zendesk.unseen_tickets import Unseen
from app.zendesk.users import Users

log = structlog.get_logger(__name__)

TICKETS = "tickets"
# A ticket that is changed again and again is left out of exports for as long; its earlier comments
# are looked at when it is shown.
OVERLAP = timedelta(hours=6)
# Zendesk may forget a cursor; from a while before the last ticket that was seen to, none is missed.
STEP_BACK = timedelta(minutes=10)
# A late webhook is admitted from the quarantine for as long, at most.
IN_QUESTION = timedelta(days=90)

# What Zendesk answers about one ticket that it does not want to show, or cannot.
OF_ONE_TICKET = (ZendeskRefusedError, ZendeskForbiddenError, ZendeskShapeError)
# So many tickets that are refused, and none that is not, are no matter of one ticket; nor is it one
# where Zendesk fails for so many.
ALL_FROM = 3

FORGET = "DELETE FROM zendesk_tickets_in_question WHERE created_at < now() - $1::interval"

OnPage = Callable[["Progress"], Awaitable[None]]


@attrs.define
class Progress:
    """How far a run is."""

    since: datetime
    until: datetime
    """When the newest ticket that was seen to was changed."""
    tickets: int = 0
    compared: int = 0
    """Those that changed since then."""
    found: int = 0
    """Emails that were not here."""
    odd: int = 0

    def __str__(self) -> str:
        said = f"{self.tickets} tickets, {self.compared} compared, {self.found} emails missing"
        return said + (f", {self.odd} of an unknown shape" if self.odd else "")


@attrs.define
class TicketLine:
    """Looks through tickets. Works in the event loop it is made in.

    Args:
        name: of its cursor.
        stopping: ends a run soon, in good order.
        on_page: told of each page that was seen to.
    """

    settings: Settings
    pool: "asyncpg.Pool[asyncpg.Record]"
    client: ZendeskClient
    name: str = TICKETS
    stopping: asyncio.Event = attrs.field(factory=asyncio.Event)
    on_page: OnPage | None = None

    async def run_once(self, *, start: datetime | None = None, dry_run: bool = False) -> Progress:
        """Go through all tickets that changed since the last run.

        Args:
            start: from when on, in the first run of all; else that is now.
            dry_run: leave all as it is.

        Raises:
            ZendeskError: Zendesk cannot be asked; the next run goes on.
        """
        find = cursors.find if dry_run else cursors.begin
        if start is None and not await cursors.is_begun(self.pool, self.name):
            start = await self.client.now()
        cursor = await find(self.pool, self.name, start or datetime.now(UTC))
        return await self.run(cursor, dry_run=dry_run)

    async def run(self, cursor: Cursor, *, dry_run: bool = False) -> Progress:
        """The same, from a cursor on.

        Raises:
            ZendeskError: as `run_once` says.
        """
        # Comments are older than the change of their ticket, if it was changed again.
        since = max(cursor.since, cursor.seen_until - OVERLAP, self._kept_since())
        progress = Progress(since, cursor.seen_until)
        users = Users(self.client)
        position = cursor.position
        while not self.stopping.is_set():
            exported = await self._export(cursor, position, dry_run)
            await self._compare_all(exported.page.items, users, progress, dry_run)
            if self.stopping.is_set():
                # Some of the page were passed over: the next run begins with it.
                break
            progress.odd += len(exported.page.odd)
            before, position = position, exported.page.after or position
            if not dry_run:
                await cursors.keep_odd(self.pool, "ticket", exported.page.odd)
                await cursors.move(
                    self.pool, self.name, position, looked_at=len(exported.page.items)
                )
            if self.on_page is not None:
                await self.on_page(progress)
            if exported.is_end or position == before:
                await self._look_again(users, progress, dry_run)
                if not dry_run:
                    await cursors.end_round(self.pool, self.name, progress.until)
                    await self.pool.execute(FORGET, IN_QUESTION)
                    await unseen_tickets.forget(self.pool)
                break
        return progress

    def _kept_since(self) -> datetime:
        """What is older may have been here, and be deleted because of its age: it is not missing,
        however long nobody has looked."""
        days = (self.settings.keep_completed_days, self.settings.keep_failed_days)
        kept = [timedelta(days=some) for some in days if some > 0]
        return datetime.now(UTC) - min(kept) if kept else datetime.min.replace(tzinfo=UTC)

    async def _export(self, cursor: Cursor, position: str | None, dry_run: bool) -> Exported:
        if position is not None:
            try:
                return await export_tickets(self.client, after=position)
            except ZendeskRefusedError as error:
                log.warning("zendesk_cursor_unknown", cursor=self.name, error=str(error))
                if not dry_run:
                    trouble = (
                        f"Zendesk knows the cursor of {self.name} no longer ({error}): tickets "
                        f"are looked through again from {cursor.seen_until:%Y-%m-%d %H:%M} UTC "
                        "on, and none is missed"
                    )
                    await cursors.set_trouble(self.pool, self.name, trouble)
        return await export_tickets(
            self.client, start=max(cursor.since, cursor.seen_until) - STEP_BACK
        )

    async def _compare_all(
        self, tickets: list[Ticket], users: Users, progress: Progress, dry_run: bool
    ) -> None:
        places = asyncio.Semaphore(AT_ONCE)
        failures: list[BaseException] = []
        refused: list[tuple[str, ZendeskError]] = []
        away: list[tuple[str, ZendeskError]] = []
        before = progress.compared
        unseen = await unseen_tickets.find(self.pool, [str(ticket.id) for ticket in tickets])

        async def compare(ticket: Ticket) -> None:
            ticket_id = str(ticket.id)
            known = unseen.get(ticket_id)
            async with places:
                if failures or len(away) >= ALL_FROM or self.stopping.is_set():
                    return
                if known is not None and known.is_set_aside:
                    return
                try:
                    await self._compare(ticket, known, users, progress, dry_run)
                except OF_ONE_TICKET as error:
                    refused.append((ticket_id, error))
                except ZendeskAwayError as error:
                    if isinstance(error, ZendeskBusyError):
                        failures.append(error)
                    else:
                        away.append((ticket_id, error))
                except Exception as error:  # noqa: BLE001 - raised when the others have ended
                    failures.append(error)

        await asyncio.gather(*map(compare, tickets))
        if failures:
            raise failures[0]
        if away and (dry_run or await self._wait_for(away, progress.since)):
            raise away[0][1]
        if len(refused) >= ALL_FROM and progress.compared == before:
            # It is not about a single one of them.
            raise refused[0][1]
        await self._set_aside([*refused, *away], progress, dry_run)
        for ticket in tickets:
            progress.until = max(progress.until, _changed_at(ticket))
        progress.tickets += len(tickets)

    async def _compare(
        self,
        ticket: Ticket,
        unseen: Unseen | None,
        users: Users,
        progress: Progress,
        dry_run: bool,
    ) -> None:
        since = progress.since
        if unseen is not None:
            since = max(min(since, unseen.unseen_since), self._kept_since())
        if ticket.updated_at < since:
            return
        found = None
        if ticket.status != DELETED:
            found = await self._read_and_admit(ticket, since, users, dry_run)
        if found is None:
            if not dry_run:
                await unseen_tickets.note_trashed(self.pool, str(ticket.id), since)
            return
        told, missing = found
        odd = [*told.odd, *(comment.record for comment in missing.refused)]
        progress.compared += 1
        progress.found += len(missing.ids)
        progress.odd += len(odd)
        if not dry_run and (missing.ids or odd):
            new = await cursors.keep_odd(self.pool, "comment", odd)
            await cursors.count(self.pool, self.name, found=len(missing.ids), odd=new)
            log.info("emails_missing", ticket=ticket.id, emails=len(missing.ids))
        if not dry_run and unseen is not None:
            await unseen_tickets.remove(self.pool, unseen.ticket_id, since)

    async def _read_and_admit(
        self, ticket: Ticket, since: datetime, users: Users, dry_run: bool
    ) -> tuple[Told, Missing] | None:
        """None where there is no such ticket any more."""
        read_at: datetime | None
        for is_last in (False, False, True):
            read_at = None if is_last else await self.pool.fetchval("SELECT clock_timestamp()")
            told = await read_comments(self.client, users, ticket, since)
            if told is None:
                return None
            with contextlib.suppress(CommentsReadBeforeError):
                missing = await admit_missing(
                    self.pool,
                    told.comments,
                    hosts=own_hosts(self.settings),
                    read_at=read_at,
                    dry_run=dry_run,
                    clock_ahead=allowed(self.client.clock_ahead),
                )
                return told, missing
        raise AssertionError("the last one is admitted whatever came")

    async def _look_again(self, users: Users, progress: Progress, dry_run: bool) -> None:
        """Ask again for tickets that Zendesk did not tell of: none of them holds up the others."""
        for unseen in await unseen_tickets.find_due(self.pool):
            if self.stopping.is_set():
                return
            try:
                ticket = await get_ticket(self.client, unseen.ticket_id)
                await self._compare(ticket, unseen, users, progress, dry_run)
            except ZendeskNotFoundError:
                if not dry_run:
                    since = unseen.unseen_since
                    await unseen_tickets.note_trashed(self.pool, unseen.ticket_id, since)
            except OF_ONE_TICKET as error:
                await self._set_aside([(unseen.ticket_id, error)], progress, dry_run)
            except ZendeskAwayError as error:
                await self._set_aside([(unseen.ticket_id, error)], progress, dry_run)
                return

    async def _wait_for(self, away: list[tuple[str, ZendeskError]], since: datetime) -> bool:
        """Whether a further round waits for tickets for which Zendesk fails. Where that are but a
        few, and it has failed in some rounds, they are no matter of the moment."""
        noted = [
            await unseen_tickets.note(self.pool, ticket_id, since, rounds_away=1)
            for ticket_id, _ in away
        ]
        return len(away) >= ALL_FROM or not all(unseen.is_set_aside for unseen in noted)

    async def _set_aside(
        self, untold: list[tuple[str, ZendeskError]], progress: Progress, dry_run: bool
    ) -> None:
        """Leave out the tickets that Zendesk does not tell of, and ask again later: all others
        would wait for them."""
        for ticket_id, error in untold:
            log.error("ticket_set_aside", ticket=ticket_id, error=str(error))
        progress.odd += len(untold)
        if untold and not dry_run:
            for ticket_id, _ in untold:
                await unseen_tickets.note(self.pool, ticket_id, progress.since)
            kept = [{"ticket": ticket_id, "error": str(error)} for ticket_id, error in untold]
            new = await cursors.keep_odd(self.pool, "ticket", kept)
            await cursors.count(self.pool, self.name, found=0, odd=new)


def _changed_at(ticket: Ticket) -> datetime:
    """When it was changed. Of a time that is yet to come nothing was seen."""
    now = datetime.now(UTC)
    seconds = ticket.generated_timestamp or 0
    return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds < now.timestamp() else now
